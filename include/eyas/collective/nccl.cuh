#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "eyas/collective/concept.hpp"
#include "eyas/collective/nccl_group.cuh"
#include "eyas/collective/rank_sum.hpp"
#include "eyas/collective/shard_list.hpp"
#include "eyas/device/cuda.cuh"

namespace eyas {

/// Trainers in several processes, a GPU each, over NCCL.
///
/// NCCL moves bytes (grouped sends and receives); sums are made here, on the GPU, in the order of
/// the ranks: ((x0 + x1) + x2) + ..., as Gloo makes them. So the bits of a sum depend on the values
/// and the ranks alone, not on the algorithm, protocol or topology that NCCL chooses, and are those
/// that Gloo gives. What lies in the memory of the device is joined there; what lies in the host's
/// is taken to the GPU and back.
///
/// Work is on a stream of its own, behind the mark of the device's; each call returns when it is
/// done. Each wait is bounded by `Rendezvous::timeout`, which each group of sends and receives has
/// for itself: a rank that dies, leaves or is silent is a TransportError on the others, at the
/// time-out or as soon as they hear of it; the communicator is aborted then, and the group has
/// ended. ResourceError for CUDA's errors, which end it, too.
///
/// Unlike Gloo it does not notice ranks that make other calls, or of other sizes: NCCL joins sends
/// and receives in their order, and the result may be wrong without an error. Ranks end with
/// barrier(): who leaves while others are in a call, even one for which it is not needed any more,
/// is lost to them.
///
/// One thread at a time uses it, not always the same; through Collective, which checks arguments. A
/// world of one uses no NCCL.
class Nccl {
public:
    /// Returns when all ranks have joined. Of the device it uses the GPU alone, which no other rank
    /// has. Throws TransportError when one does not come within the time-out (rank 0 names it),
    /// ContractError where ranks disagree about the group, ResourceError where rank 0's port is
    /// taken or the GPU has nothing to give.
    Nccl(const Rendezvous& r, const Cuda& device)
        : rank_(r.rank), world_(r.world), ordinal_(device.ordinal()) {
        detail::check_rendezvous(r, "Nccl");
        if (world_ > 1) group_ = std::make_unique<detail::NcclGroup>(r, ordinal_);
    }

    int rank() const { return rank_; }
    int world() const { return world_; }
    bool reaches(const Cuda& device) const { return device.ordinal() == ordinal_; }

    void all_reduce(std::span<float> values) { sum_everywhere(values); }
    void all_reduce(std::span<double> values) { sum_everywhere(values); }

    void broadcast(std::span<std::byte> bytes, int root) {
        call("broadcast", bytes, [&] {
            const auto staged = on_gpu<std::byte>(bytes.size());
            if (rank_ == root) upload(std::span<const std::byte>(bytes), staged);
            group_->together([&] {
                if (rank_ != root) return group_->receive(root, staged);
                group_->for_each_peer([&](int p) { group_->send(p, staged); });
            });
            if (rank_ != root) download(std::span<const std::byte>(staged), bytes);
        });
    }
    void barrier() {
        std::byte mine{};
        call("barrier", std::span(&mine, 1), [&] {
            const auto counts = std::vector<std::size_t>(static_cast<std::size_t>(world_), 1);
            post_gather(on_gpu<std::byte>(counts.size()), detail::starts_of(counts), everyone);
        });
    }

    /// In the host's memory. This rank's shard becomes the sum over ranks, the others stay.
    void reduce_scatter(std::span<float> values, std::span<const std::size_t> counts) {
        call("reduce_scatter", values, [&] {
            const auto starts = detail::starts_of(counts);
            const auto staged = on_gpu<float>(values.size());
            upload(std::span<const float>(values), staged);
            post_sums(staged, starts);
            download(std::span<const float>(detail::shard_of(staged, starts, rank_)),
                     detail::shard_of(values, starts, rank_));
        });
    }
    /// In the device's memory. The others' shards are not to be relied on.
    void reduce_scatter(std::span<float> values, std::span<const std::size_t> counts,
                        const CudaMark& after) {
        call("reduce_scatter", values, [&] {
            group_->hold_back(after);
            post_sums(values, detail::starts_of(counts));
        });
    }

    /// In the host's memory: to everyone, and to root alone.
    void all_gather(std::span<std::byte> bytes, std::span<const std::size_t> counts) {
        gather_on_host("all_gather", bytes, counts, everyone);
    }
    void gather(std::span<std::byte> bytes, std::span<const std::size_t> counts, int root) {
        gather_on_host("gather", bytes, counts, root);
    }
    /// In the device's memory.
    void all_gather(std::span<std::byte> bytes, std::span<const std::size_t> counts,
                    const CudaMark& after) {
        call("all_gather", bytes, [&] {
            group_->hold_back(after);
            post_gather(bytes, detail::starts_of(counts), everyone);
        });
    }

private:
    using Starts = detail::ShardStarts;
    static constexpr int everyone = -1;                                 // where a root is asked for
    static constexpr std::size_t most_scratch = std::size_t{64} << 20;  // bytes of others' terms

    /// f() posts the work of a call; returns when it is done.
    template <class T, class F>
    void call(const char* name, std::span<T> values, F&& f) {
        if (world_ == 1 || values.empty()) return;
        group_->run(std::string(name) + " of " + std::to_string(values.size_bytes()) + " bytes",
                    [&] {
                        f();
                        group_->wait();
                    });
    }

    template <class T>
    void sum_everywhere(std::span<T> values) {
        call("all_reduce", values, [&] {
            const auto starts = detail::starts_of(detail::even_shards(values.size(), world_));
            const auto staged = on_gpu<T>(values.size());
            upload(std::span<const T>(values), staged);
            post_sums(staged, starts);
            post_gather(std::as_writable_bytes(staged), in_bytes<T>(starts), everyone);
            download(std::span<const T>(staged), values);
        });
    }

    void gather_on_host(const char* name, std::span<std::byte> bytes,
                        std::span<const std::size_t> counts, int root) {
        call(name, bytes, [&] {
            const auto starts = detail::starts_of(counts);
            const auto staged = on_gpu<std::byte>(bytes.size());
            upload(std::span<const std::byte>(detail::shard_of(bytes, starts, rank_)),
                   detail::shard_of(staged, starts, rank_));
            post_gather(staged, starts, root);
            if (root == everyone || root == rank_)
                download(std::span<const std::byte>(staged), bytes);
        });
    }

    /// This rank's shard becomes the sum over ranks, segment by segment.
    template <class T>
    void post_sums(std::span<T> values, const Starts& starts) {
        const auto each =
            std::max<std::size_t>(1, most_scratch / sizeof(T) / static_cast<std::size_t>(world_));
        const auto mine = detail::shard_of(values, starts, rank_);
        const auto stride = std::min(each, mine.size());
        const auto theirs = scratch<T>(stride * static_cast<std::size_t>(world_));
        const auto longest = detail::longest_shard(starts);
        for (std::size_t k = 0; k * each < longest; ++k) {
            const auto sum = detail::segment_of(mine, k, each);
            group_->together([&] {
                group_->for_each_peer([&](int p) {
                    const auto terms =
                        detail::segment_of(detail::shard_of(values, starts, p), k, each);
                    group_->send(p, std::as_bytes(terms));
                    group_->receive(p, std::as_writable_bytes(theirs.subspan(
                                           static_cast<std::size_t>(p) * stride, sum.size())));
                });
            });
            add(detail::RankSum<T>{sum.data(), theirs.data(), static_cast<std::int64_t>(stride),
                                   rank_, world_},
                static_cast<std::int64_t>(sum.size()));
        }
    }
    template <class F>
    void add(const F& of_element, std::int64_t n) {
        if (n == 0) return;
        const std::int64_t threads = detail::row_threads;
        detail::launch_kernel((n + threads - 1) / threads, detail::row_threads, group_->stream(),
                              detail::ForEach<F>{n, of_element});
        detail::check_cuda(cudaGetLastError(), "cudaGetLastError after the launch of a sum");
    }

    void post_gather(std::span<std::byte> bytes, const Starts& starts, int root) {
        group_->together([&] {
            group_->for_each_peer([&](int p) {
                if (root == everyone || root == p)
                    group_->send(p, detail::shard_of(bytes, starts, rank_));
                if (root == everyone || root == rank_)
                    group_->receive(p, detail::shard_of(bytes, starts, p));
            });
        });
    }

    template <class T>
    static Starts in_bytes(Starts starts) {
        for (auto& s : starts) s *= sizeof(T);
        return starts;
    }

    template <class T>
    void upload(std::span<const T> from, std::span<T> to) {
        copy(from.data(), to.data(), from.size_bytes(), cudaMemcpyHostToDevice);
    }
    /// Waits for the work before: a copy to pageable memory would wait without a limit.
    template <class T>
    void download(std::span<const T> from, std::span<T> to) {
        group_->wait();
        copy(from.data(), to.data(), from.size_bytes(), cudaMemcpyDeviceToHost);
    }
    void copy(const void* from, void* to, std::size_t bytes, cudaMemcpyKind kind) {
        if (bytes > 0)
            detail::check_cuda(cudaMemcpyAsync(to, from, bytes, kind, group_->stream()),
                               "cudaMemcpyAsync");
    }

    /// The GPU's memory for n values of the host's, or of other ranks; kept from call to call.
    template <class T>
    std::span<T> on_gpu(std::size_t n) {
        return room<T>(staging_, n);
    }
    template <class T>
    std::span<T> scratch(std::size_t n) {
        return room<T>(scratch_, n);
    }
    template <class T>
    std::span<T> room(Tensor& in, std::size_t n) {
        const auto bytes = std::max<std::size_t>(1, n * sizeof(T));
        if (in.view().size_bytes() < bytes || in.empty()) {
            in = Tensor();  // before the next is taken
            in = Tensor(DType::U8, {static_cast<std::int64_t>(bytes)}, &group_->memory());
        }
        return {reinterpret_cast<T*>(in.mutable_view().data), n};
    }

    int rank_, world_, ordinal_;
    std::unique_ptr<detail::NcclGroup> group_;
    Tensor staging_, scratch_;  // of the group's memory
};
static_assert(ReachesMemoryOf<Nccl, Cuda>);

}  // namespace eyas
