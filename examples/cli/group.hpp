#pragma once
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "eyas/checkpoint/on_host.hpp"
#include "eyas/checkpoint/state.hpp"
#include "eyas/collective/collective.hpp"
#include "eyas/collective/rendezvous.hpp"
#include "eyas/core/json.hpp"
#include "eyas/core/stop_signals.hpp"
#ifdef EYAS_CLI_GLOO
#include "eyas/collective/gloo.hpp"
#endif

namespace eyas::cli {

#ifdef EYAS_CLI_GLOO
/// One Gloo for the trainer and for the command that drives it, which take turns.
class SharedGloo {
public:
    explicit SharedGloo(std::shared_ptr<Gloo> gloo) : gloo_(std::move(gloo)) {}
    int rank() const { return gloo_->rank(); }
    int world() const { return gloo_->world(); }
    void all_reduce(std::span<float> v) { gloo_->all_reduce(v); }
    void all_reduce(std::span<double> v) { gloo_->all_reduce(v); }
    void broadcast(std::span<std::byte> bytes, int root) { gloo_->broadcast(bytes, root); }
    void reduce_scatter(std::span<float> v, std::span<const std::size_t> counts) {
        gloo_->reduce_scatter(v, counts);
    }
    void all_gather(std::span<std::byte> bytes, std::span<const std::size_t> counts) {
        gloo_->all_gather(bytes, counts);
    }
    void gather(std::span<std::byte> bytes, std::span<const std::size_t> counts, int root) {
        gloo_->gather(bytes, counts, root);
    }
    void barrier() { gloo_->barrier(); }

private:
    std::shared_ptr<Gloo> gloo_;
};
static_assert(CollectiveBackend<SharedGloo>);
#endif

/// The processes of one training, as the launcher's environment says; one where it says nothing.
class TrainingGroup {
public:
#ifdef EYAS_CLI_GLOO
    using Member = Collective<SharedGloo>;  // of one process, too: it does nothing then
#else
    using Member = Collective<Solo>;
#endif

    /// Returns when all processes have joined; errors as of rendezvous_from_environment and Gloo.
    void join(std::chrono::seconds timeout) {
        auto r = rendezvous_from_environment();
        r.timeout = timeout;
        r.interrupt = &stop_requested();
#ifdef EYAS_CLI_GLOO
        gloo_ = std::make_shared<Gloo>(r);
#else
        if (r.world > 1)
            throw ContractError("several processes need Gloo", "this eyas was built without it",
                                "Install libgloo-dev and build it anew");
#endif
    }

    Member member() const {
#ifdef EYAS_CLI_GLOO
        return Member(gloo_);
#else
        return Member();
#endif
    }

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
    static std::string roots(Member& all, std::string text) {
        std::uint64_t size = text.size();
        all.broadcast(std::as_writable_bytes(std::span(&size, 1)));
        text.resize(size);
        all.broadcast(std::as_writable_bytes(std::span(text.data(), text.size())));
        return text;
    }

#ifdef EYAS_CLI_GLOO
    std::shared_ptr<Gloo> gloo_ = std::make_shared<Gloo>(Rendezvous{});
#endif
};

}  // namespace eyas::cli
