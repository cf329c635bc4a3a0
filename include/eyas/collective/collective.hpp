#pragma once
#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "eyas/collective/concept.hpp"
#include "eyas/collective/solo.hpp"
#include "eyas/core/error.hpp"

namespace eyas {

/// A group of trainers over a backend: checks what every backend would otherwise check.
/// Used by one thread at a time. Move-only; owns its backend. Errors besides those of the checks
/// are the backend's.
template <CollectiveBackend B>
class Collective {
public:
    /// Throws ContractError if the backend's rank is outside its world.
    template <class... Args>
    explicit Collective(Args&&... args)
        : backend_(std::make_unique<B>(std::forward<Args>(args)...)) {
        if (world() < 1 || rank() < 0 || rank() >= world())
            throw ContractError(
                "rank " + std::to_string(rank()) + " in a world of " + std::to_string(world()),
                "Collective", "Number the ranks from 0 to world - 1");
    }

    int rank() const { return backend_->rank(); }
    int world() const { return backend_->world(); }
    bool is_root() const { return rank() == 0; }

    /// Whether the calls that take a mark may name what this device works on.
    template <Device D>
    bool reaches(const D& device) const {
        if (!device.memory()) return true;
        if constexpr (ReachesMemoryOf<B, D>) return backend_->reaches(device);
        return false;
    }

    /// In place: every rank ends with the sum over ranks.
    void all_reduce(std::span<float> values) {
        if (world() > 1 && !values.empty()) backend_->all_reduce(values);
    }
    void all_reduce(std::span<double> values) {
        if (world() > 1 && !values.empty()) backend_->all_reduce(values);
    }

    /// Every rank ends with root's bytes. Throws ContractError for a root outside the world.
    void broadcast(std::span<std::byte> bytes, int root = 0) {
        check_root(root, "broadcast");
        if (world() > 1 && !bytes.empty()) backend_->broadcast(bytes, root);
    }

    /// `values`: of all ranks' shards, one after the other; `counts[p]`: elements of rank p's. In
    /// place: this rank's shard becomes the sum over ranks, with the bits that all_reduce gives;
    /// what the others hold then is the backend's business. Throws ContractError where counts are
    /// not one per rank or do not add up to the whole.
    void reduce_scatter(std::span<float> values, std::span<const std::size_t> counts) {
        check_shards(values.size(), counts, "reduce_scatter");
        if (world() > 1 && !values.empty()) backend_->reduce_scatter(values, counts);
    }
    /// The same of what a device works on that is within reach; `after`: its mark, mark_of(device).
    template <class Mark>
    void reduce_scatter(std::span<float> values, std::span<const std::size_t> counts,
                        const Mark& after) {
        check_shards(values.size(), counts, "reduce_scatter");
        if (world() > 1 && !values.empty())
            on_device(after, [&](const auto&... mark) {
                backend_->reduce_scatter(values, counts, mark...);
            });
    }

    /// Every rank ends with all shards, each as its own rank had it. Arguments and errors as above.
    template <class T>
    requires std::is_trivially_copyable_v<T>
    void all_gather(std::span<T> values, std::span<const std::size_t> counts) {
        check_shards(values.size(), counts, "all_gather");
        if (world() > 1 && !values.empty())
            backend_->all_gather(std::as_writable_bytes(values), in_bytes<T>(counts));
    }
    /// The same of what a device works on.
    template <class T, class Mark>
    requires std::is_trivially_copyable_v<T>
    void all_gather(std::span<T> values, std::span<const std::size_t> counts, const Mark& after) {
        check_shards(values.size(), counts, "all_gather");
        const auto bytes = in_bytes<T>(counts);
        if (world() > 1 && !values.empty())
            on_device(after, [&](const auto&... mark) {
                backend_->all_gather(std::as_writable_bytes(values), bytes, mark...);
            });
    }

    /// The same on root alone; elsewhere nothing changes.
    template <class T>
    requires std::is_trivially_copyable_v<T>
    void gather(std::span<T> values, std::span<const std::size_t> counts, int root = 0) {
        check_root(root, "gather");
        check_shards(values.size(), counts, "gather");
        if (world() > 1 && !values.empty())
            backend_->gather(std::as_writable_bytes(values), in_bytes<T>(counts), root);
    }

    /// Returns once every rank has called it.
    void barrier() {
        if (world() > 1) backend_->barrier();
    }

private:
    void check_root(int root, const char* call) const {
        if (root < 0 || root >= world())
            throw ContractError("root " + std::to_string(root), std::string("Collective::") + call,
                                "Name a rank below " + std::to_string(world()));
    }
    void check_shards(std::size_t n, std::span<const std::size_t> counts, const char* call) const {
        auto left = n;
        bool fits = counts.size() == static_cast<std::size_t>(world());
        for (const auto c : counts) {
            fits = fits && c <= left;
            left -= fits ? c : 0;
        }
        if (!fits || left != 0)
            throw ContractError(std::to_string(counts.size()) + " shards for " +
                                    std::to_string(world()) + " ranks and " + std::to_string(n) +
                                    " values, or shards of another sum",
                                std::string("Collective::") + call,
                                "Give one count per rank, which add up to the whole");
    }
    /// call(after), or call() for what is the host's.
    template <class Mark, class F>
    static void on_device(const Mark& after, F&& call) {
        if constexpr (std::same_as<Mark, NothingPending>)
            call();
        else if constexpr (requires(B & b, std::span<float> f, std::span<const std::size_t> n) {
                               b.reduce_scatter(f, n, after);
                           })
            call(after);
        else
            throw ContractError("the values lie in the memory of a device", "Collective",
                                "Use a group that reaches it");
    }
    template <class T>
    static std::vector<std::size_t> in_bytes(std::span<const std::size_t> counts) {
        std::vector<std::size_t> bytes(counts.begin(), counts.end());
        for (auto& b : bytes) b *= sizeof(T);
        return bytes;
    }

    std::unique_ptr<B> backend_;
};

}  // namespace eyas
