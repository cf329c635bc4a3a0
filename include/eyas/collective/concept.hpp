#pragma once
#include <concepts>
#include <cstddef>
#include <span>

#include "eyas/device/mark.hpp"

namespace eyas {

/// What joins several trainers into one. Every call but rank() and world() is collective: all ranks
/// make the same calls in the same order with the same sizes. all_reduce leaves the same bits on
/// every rank, and the same bits whenever the inputs are the same; reduce_scatter gives the same
/// bits as all_reduce. `counts`: elements of each rank's shard; the shards lie one after the other.
/// What the calls work on lies in the host's memory. One thread at a time, not always the same.
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

/// A backend that also joins, in place, what lies in the memory of a device that has its own, with
/// the same results. `after`: where the device's work had come when the values were there; earlier
/// the call touches none. As the other calls it returns when it is done, so whatever the device is
/// told to do then may use the result. The calling thread need not be the one that drives the
/// device, and the device may do other work meanwhile.
template <class B, class D>
concept ReachesMemoryOf = CollectiveBackend<B> && Device<D> &&
    requires(B& b, const B& cb, const D& device, std::span<float> f, std::span<std::byte> raw,
             std::span<const std::size_t> counts, const MarkOf<D>& after) {
    { cb.reaches(device) } -> std::same_as<bool>;  // this one's memory
    b.reduce_scatter(f, counts, after);
    b.all_gather(raw, counts, after);
};

}  // namespace eyas
