#pragma once
#include <concepts>
#include <cstddef>
#include <span>

namespace eyas {

/// What joins several trainers into one. Every call but rank() and world() is collective: all ranks
/// make the same calls in the same order with the same sizes. all_reduce leaves the same bits on
/// every rank, and the same bits whenever the inputs are the same; reduce_scatter gives the same
/// bits as all_reduce. `counts`: elements of each rank's shard; the shards lie one after the other.
/// One thread at a time, not always the same.
/// Failure of a peer is a TransportError; the group is unusable afterwards.
template <class B>
concept CollectiveBackend = requires(B& b, const B& cb, std::span<float> f, std::span<double> d,
                                     std::span<std::byte> raw,
                                     std::span<const std::size_t> counts) {
    { cb.rank() } -> std::convertible_to<int>;
    { cb.world() } -> std::convertible_to<int>;
    b.all_reduce(f);              // in place, sum
    b.all_reduce(d);              // in place, sum
    b.broadcast(raw, 0);          // root's bytes to everyone
    b.reduce_scatter(f, counts);  // in place: this rank's shard becomes its sum over ranks
    b.all_gather(raw, counts);    // everyone gets each rank's shard
    b.gather(raw, counts, 0);     // root does
    b.barrier();
};

}  // namespace eyas
