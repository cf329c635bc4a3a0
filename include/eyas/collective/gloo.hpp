#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "eyas/collective/concept.hpp"
#include "eyas/collective/gloo_mesh.hpp"
#include "eyas/collective/rendezvous.hpp"
#include "eyas/collective/shard_list.hpp"

namespace eyas {

/// Trainers in several processes, on one or more machines, over Gloo's TCP transport.
///
/// Sums are made in the order of the ranks, for each element: ((x0 + x1) + x2) + ..., whatever the
/// length of the call and wherever its shards lie. So all ranks get the same bits, the same inputs
/// give the same sum, and reduce_scatter gives the bits that all_reduce gives.
///
/// Each wait for a peer is bounded by `Rendezvous::timeout`. A rank that dies, leaves or is silent
/// for so long is a TransportError that names it, on every rank that needs it; a rank that has
/// failed closes its connections, so that the others fail at once, too. Ranks that make other calls
/// than this one (or of another size) are silent: their messages do not meet. The group trusts its
/// network. One thread at a time uses it, not always the same; through Collective, which checks
/// arguments. A world of one opens no connection and starts no thread.
class Gloo {
public:
    /// Returns when all ranks have joined. Throws TransportError when one does not come within the
    /// time-out (rank 0 names it), ContractError where ranks disagree about the group,
    /// ResourceError where rank 0's port is taken.
    explicit Gloo(const Rendezvous& r) : rank_(r.rank), world_(r.world) {
        detail::check_rendezvous(r, "Gloo");
        if (world_ == 1) return;
        segment_ = std::min(segment_, most_scratch / static_cast<std::size_t>(world_) / 2);
        mesh_ = std::make_unique<detail::GlooMesh>(r);
    }

    int rank() const { return rank_; }
    int world() const { return world_; }

    void all_reduce(std::span<float> values) { sum_everywhere(values); }
    void all_reduce(std::span<double> values) { sum_everywhere(values); }

    void broadcast(std::span<std::byte> bytes, int root) {
        if (world_ == 1 || bytes.empty()) return;
        const auto slot = next_slot('b', bytes.size(), root);
        mesh_->run(name("broadcast", bytes.size()), [&] {
            in_rounds(rounds_of(bytes.size(), segment_), slot, [&](std::size_t k, Wave& wave) {
                const auto part = detail::segment_of(bytes, k, segment_);
                if (rank_ == root)
                    mesh_->for_each_peer([&](int p) { wave.send(p, part); });
                else
                    wave.receive(root, part);
            });
        });
    }

    void barrier() {
        if (world_ == 1) return;
        std::vector<std::byte> theirs(static_cast<std::size_t>(world_)), mine(1);
        const auto slot = next_slot('w', 1);
        mesh_->run("barrier", [&] { swap_all<std::byte>(mine, theirs, slot); });
    }

    /// `values`: of all ranks' shards, one after the other; `counts[p]`: elements of rank p's.
    /// In place: this rank's shard becomes the sum over ranks, the others stay as they are.
    void reduce_scatter(std::span<float> values, std::span<const std::size_t> counts) {
        if (world_ > 1) scatter_sums(values, detail::starts_of(counts));
    }

    /// Every rank ends with all shards, each as its own rank had it.
    void all_gather(std::span<std::byte> bytes, std::span<const std::size_t> counts) {
        if (world_ > 1) gather_shards(bytes, detail::starts_of(counts), everyone);
    }

    /// The same on root alone.
    void gather(std::span<std::byte> bytes, std::span<const std::size_t> counts, int root) {
        if (world_ > 1) gather_shards(bytes, detail::starts_of(counts), root);
    }

private:
    using Wave = detail::GlooMesh::Wave;
    using Starts = detail::ShardStarts;

    static constexpr int everyone = -1;                                 // where a root is asked for
    static constexpr std::size_t most_scratch = std::size_t{64} << 20;  // bytes
    // Shorter sums go from each rank to each other in one step.
    static constexpr std::size_t small = std::size_t{1} << 14;

    /// Calls with other arguments have another slot, so that their messages never meet.
    std::uint64_t next_slot(char kind, std::span<const std::size_t> sizes) {
        auto mixed = static_cast<std::uint64_t>(kind);
        for (const auto n : sizes) mixed = (mixed ^ n) * 0x9E3779B97F4A7C15u;
        return (calls_++ << 24 & ~(std::uint64_t{1} << 63)) | mixed >> 40;
    }
    std::uint64_t next_slot(char kind, std::size_t bytes, int root = 0) {
        return next_slot(kind, std::array{bytes, static_cast<std::size_t>(root)});
    }
    static std::string name(const char* call, std::size_t bytes) {
        return std::string(call) + " of " + std::to_string(bytes) + " bytes";
    }
    static std::size_t rounds_of(std::size_t n, std::size_t each) { return (n + each - 1) / each; }

    /// post(k, wave) adds the transfers of round k; done(k) follows when they have ended, while
    /// those of the next are under way.
    template <class Post, class Done>
    void in_rounds(std::size_t rounds, std::uint64_t slot, Post post, Done done) {
        std::optional<Wave> waves[2];
        const auto begin = [&](std::size_t k) { post(k, waves[k % 2].emplace(*mesh_, slot)); };
        if (rounds > 0) begin(0);
        for (std::size_t k = 0; k < rounds; ++k) {
            if (k + 1 < rounds) begin(k + 1);
            waves[k % 2]->wait();
            done(k);
        }
    }
    template <class Post>
    void in_rounds(std::size_t rounds, std::uint64_t slot, Post post) {
        in_rounds(rounds, slot, post, [](std::size_t) {});
    }

    /// Each rank's `mine` to every other: `theirs` holds world of them, but for this rank's own.
    template <class T>
    void swap_all(std::span<T> mine, std::span<T> theirs, std::uint64_t slot) {
        Wave wave(*mesh_, slot);
        mesh_->for_each_peer([&](int p) {
            wave.receive(p, std::as_writable_bytes(theirs.subspan(
                                static_cast<std::size_t>(p) * mine.size(), mine.size())));
        });
        mesh_->for_each_peer([&](int p) { wave.send(p, std::as_writable_bytes(mine)); });
        wave.wait();
    }

    template <class T>
    void sum_everywhere(std::span<T> values) {
        if (world_ == 1 || values.empty()) return;
        if (values.size_bytes() > small) {
            const auto starts = detail::starts_of(detail::even_shards(values.size(), world_));
            scatter_sums(values, starts);
            gather_shards(values, starts, everyone);
            return;
        }
        const auto theirs = scratch<T>(values.size() * static_cast<std::size_t>(world_));
        const auto slot = next_slot(sizeof(T) == 4 ? 'f' : 'd', values.size_bytes());
        mesh_->run(name("all_reduce", values.size_bytes()), [&] {
            swap_all(values, theirs, slot);
            add_in_order(values, std::span<const T>(theirs), values.size());
        });
    }

    /// mine[i] = ((x0 + x1) + x2) + ..., where rank p's term is theirs[p * stride + i], and this
    /// rank's is in `mine`.
    template <class T>
    void add_in_order(std::span<T> mine, std::span<const T> theirs, std::size_t stride) const {
        std::array<T, 1024> sum;
        for (std::size_t at = 0; at < mine.size(); at += sum.size()) {
            const auto n = std::min(sum.size(), mine.size() - at);
            for (int p = 0; p < world_; ++p) {
                const T* term = p == rank_
                                    ? mine.data() + at
                                    : theirs.data() + static_cast<std::size_t>(p) * stride + at;
                if (p == 0)
                    std::copy_n(term, n, sum.begin());
                else
                    for (std::size_t i = 0; i < n; ++i) sum[i] += term[i];
            }
            std::copy_n(sum.begin(), n, mine.begin() + static_cast<std::ptrdiff_t>(at));
        }
    }

    /// Memory for n values of other ranks, kept from call to call.
    template <class T>
    std::span<T> scratch(std::size_t n) {
        if (n * sizeof(T) > scratch_bytes_) {
            scratch_bytes_ = n * sizeof(T);
            scratch_ = std::make_unique_for_overwrite<std::byte[]>(scratch_bytes_);
        }
        return {reinterpret_cast<T*>(scratch_.get()), n};
    }

    template <class T>
    void scatter_sums(std::span<T> values, const Starts& starts) {
        const auto each = segment_ / sizeof(T);
        const auto mine = detail::shard_of(values, starts, rank_);
        const auto stride = std::min(each, mine.size());
        // Of each rank's terms the segment that is summed and the one that comes.
        const auto half = stride * static_cast<std::size_t>(world_);
        const auto both = scratch<T>(2 * half);
        const std::span<T> theirs[2] = {both.first(half), both.last(half)};
        const auto slot = next_slot(sizeof(T) == 4 ? 'r' : 'R', starts);
        mesh_->run(name("reduce_scatter", values.size_bytes()), [&] {
            in_rounds(
                rounds_of(detail::longest_shard(starts), each), slot,
                [&](std::size_t k, Wave& wave) {
                    const auto into = detail::segment_of(mine, k, each).size();
                    mesh_->for_each_peer([&](int p) {
                        const auto place = static_cast<std::size_t>(p) * stride;
                        wave.receive(p, std::as_writable_bytes(theirs[k % 2].subspan(place, into)));
                    });
                    mesh_->for_each_peer([&](int p) {
                        wave.send(p, std::as_writable_bytes(detail::segment_of(
                                         detail::shard_of(values, starts, p), k, each)));
                    });
                },
                [&](std::size_t k) {
                    add_in_order(detail::segment_of(mine, k, each),
                                 std::span<const T>(theirs[k % 2]), stride);
                });
        });
    }

    /// To root, or to everyone.
    template <class T>
    void gather_shards(std::span<T> values, const Starts& starts, int root) {
        const auto each = segment_ / sizeof(T);
        auto sizes = starts;
        sizes.push_back(static_cast<std::size_t>(root));
        const auto slot = next_slot(static_cast<char>('g' + sizeof(T)), sizes);
        mesh_->run(name(root == everyone ? "all_gather" : "gather", values.size_bytes()), [&] {
            in_rounds(rounds_of(detail::longest_shard(starts), each), slot,
                      [&](std::size_t k, Wave& wave) {
                          const auto part = [&](int p) {
                              return std::as_writable_bytes(
                                  detail::segment_of(detail::shard_of(values, starts, p), k, each));
                          };
                          mesh_->for_each_peer([&](int p) {
                              if (root == everyone || root == rank_) wave.receive(p, part(p));
                          });
                          mesh_->for_each_peer([&](int p) {
                              if (root == everyone || root == p) wave.send(p, part(rank_));
                          });
                      });
        });
    }

    int rank_, world_;
    // Bytes. Larger messages go in segments of that size: one is summed while the next is on its
    // way, and a slow network that makes progress is not taken for a silent rank.
    std::size_t segment_ = std::size_t{4} << 20;
    std::unique_ptr<detail::GlooMesh> mesh_;
    std::uint64_t calls_ = 0;
    std::size_t scratch_bytes_ = 0;
    std::unique_ptr<std::byte[]> scratch_;
};
static_assert(CollectiveBackend<Gloo>);

}  // namespace eyas
