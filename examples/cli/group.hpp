#pragma once
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>

#include "eyas/checkpoint/on_host.hpp"
#include "eyas/checkpoint/state.hpp"
#include "eyas/collective/collective.hpp"
#include "eyas/collective/rendezvous.hpp"
#include "eyas/collective/solo.hpp"
#include "eyas/core/json.hpp"
#include "eyas/core/stop_signals.hpp"
#ifdef EYAS_CLI_GLOO
#include "eyas/collective/gloo.hpp"
#endif
#ifdef EYAS_CLI_NCCL
#include "eyas/collective/local_rank.hpp"
#include "eyas/collective/nccl.cuh"
#endif

namespace eyas::cli {

/// One group for the trainer and for the command that drives it, which take turns: of processes on
/// the host, or on GPUs, or of one alone. Copies share it.
class SharedGroup {
public:
    SharedGroup() : SharedGroup(std::make_shared<Solo>()) {}
    template <class B>
    explicit SharedGroup(std::shared_ptr<B> backend)
        : rank_(backend->rank()), world_(backend->world()), backend_(std::move(backend)) {}

    int rank() const { return rank_; }
    int world() const { return world_; }
    template <class T>
    void all_reduce(std::span<T> v) {
        use([&](auto& b) { b.all_reduce(v); });
    }
    void broadcast(std::span<std::byte> bytes, int root) {
        use([&](auto& b) { b.broadcast(bytes, root); });
    }
    void reduce_scatter(std::span<float> v, std::span<const std::size_t> counts) {
        use([&](auto& b) { b.reduce_scatter(v, counts); });
    }
    void all_gather(std::span<std::byte> bytes, std::span<const std::size_t> counts) {
        use([&](auto& b) { b.all_gather(bytes, counts); });
    }
    void gather(std::span<std::byte> bytes, std::span<const std::size_t> counts, int root) {
        use([&](auto& b) { b.gather(bytes, counts, root); });
    }
    void barrier() {
        use([](auto& b) { b.barrier(); });
    }

#ifdef EYAS_CLI_NCCL
    bool reaches(const Cuda& device) const {
        const auto* gpus = std::get_if<std::shared_ptr<Nccl>>(&backend_);
        return gpus && (*gpus)->reaches(device);
    }
    /// Of a device that is within reach.
    void reduce_scatter(std::span<float> v, std::span<const std::size_t> counts,
                        const CudaMark& after) {
        std::get<std::shared_ptr<Nccl>>(backend_)->reduce_scatter(v, counts, after);
    }
    void all_gather(std::span<std::byte> bytes, std::span<const std::size_t> counts,
                    const CudaMark& after) {
        std::get<std::shared_ptr<Nccl>>(backend_)->all_gather(bytes, counts, after);
    }
#endif

private:
    template <class F>
    void use(const F& f) const {
        std::visit([&](const auto& backend) { f(*backend); }, backend_);
    }

    int rank_, world_;
    std::variant<std::shared_ptr<Solo>
#ifdef EYAS_CLI_GLOO
                 ,
                 std::shared_ptr<Gloo>
#endif
#ifdef EYAS_CLI_NCCL
                 ,
                 std::shared_ptr<Nccl>
#endif
                 >
        backend_;
};
static_assert(CollectiveBackend<SharedGroup>);
#ifdef EYAS_CLI_NCCL
static_assert(ReachesMemoryOf<SharedGroup, Cuda>);
#endif

/// The processes of one training, as the launcher's environment says; one where it says nothing.
class TrainingGroup {
public:
    using Member = Collective<SharedGroup>;  // of one process, too: it does nothing then

    /// Leaves the group when it goes. By an exception the others learn of it at once, which is why
    /// it has to go while that is on its way.
    class Leave {
    public:
        explicit Leave(TrainingGroup& group) : group_(group) {}
        Leave(const Leave&) = delete;
        Leave& operator=(const Leave&) = delete;
        ~Leave() { group_.shared_ = SharedGroup(); }

    private:
        TrainingGroup& group_;
    };

    /// Returns when all processes have joined: over NCCL where `device` is cuda, a GPU each, else
    /// over Gloo. Errors as of rendezvous_from_environment, gpu_of_rank, Cuda, Nccl and Gloo.
    void join(std::chrono::seconds timeout, [[maybe_unused]] const std::string& device) {
        auto r = rendezvous_from_environment();
        if (r.world == 1) return;
        r.timeout = timeout;
        r.interrupt = &stop_requested();
#ifdef EYAS_CLI_CUDA
        if (device == "cuda") return join_on_gpus(r);
#endif
#ifdef EYAS_CLI_GLOO
        shared_ = SharedGroup(std::make_shared<Gloo>(r));
#else
        throw ContractError("several processes need Gloo", "this eyas was built without it",
                            "Install libgloo-dev and build it anew");
#endif
    }

    Member member() const { return Member(shared_); }
    /// Which of the GPUs this process works on, where it works on one.
    int gpu() const { return gpu_; }

    /// Every rank's object must be root's. Throws ContractError that names what differs.
    void require_same(const OrderedJson& mine) const {
        auto all = member();
        if (all.world() == 1) return;
        const auto root = OrderedJson::parse(roots(all, mine.dump()), nullptr, false);
        for (const auto& [key, value] : mine.items())
            if (!root.is_object() || !root.contains(key) || root.at(key) != value)
                throw ContractError(
                    key + " is " + value.dump() + " here and " +
                        (root.contains(key) ? root.at(key).dump() : "nothing") + " on rank 0",
                    "rank " + std::to_string(all.rank()) + " of " + std::to_string(all.world()),
                    "Start all ranks with the same options, on the same samples, and with a run "
                    "directory that all of them see");
    }

    /// All ranks begin with root's values, whatever they read or drew.
    template <class M>
    void share_weights(M& model) const {
        auto all = member();
        if (all.world() == 1) return;
        const auto host = eyas::detail::weights_on_host(model);
        for (const auto& p : host.content().parameters) all.broadcast(p.value.bytes());
        host.put_back();
    }

    /// Root's answer, for all.
    bool root_says(bool mine) const {
        std::byte answer{mine};
        member().broadcast(std::span(&answer, 1));
        return answer != std::byte{0};
    }

private:
#ifdef EYAS_CLI_CUDA
    void join_on_gpus([[maybe_unused]] const Rendezvous& r) {
#ifdef EYAS_CLI_NCCL
        gpu_ = gpu_of_rank(r, Cuda::count());
        shared_ = SharedGroup(std::make_shared<Nccl>(r, Cuda(gpu_)));
#else
        throw ContractError("several processes on GPUs need NCCL", "this eyas was built without it",
                            "Install NCCL (or set NCCL_HOME) and build it anew");
#endif
    }
#endif

    static std::string roots(Member& all, std::string text) {
        std::uint64_t size = text.size();
        all.broadcast(std::as_writable_bytes(std::span(&size, 1)));
        text.resize(size);
        all.broadcast(std::as_writable_bytes(std::span(text.data(), text.size())));
        return text;
    }

    SharedGroup shared_;
    int gpu_ = 0;
};

}  // namespace eyas::cli
