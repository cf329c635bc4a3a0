#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "eyas/collective/concept.hpp"
#include "eyas/collective/solo.hpp"
#include "eyas/core/error.hpp"

namespace eyas {

/// A group of trainers over a backend: checks what every backend would otherwise check.
/// Used by the one thread that drives the trainer. Move-only; owns its backend.
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

    /// In place: every rank ends with the sum over ranks.
    void all_reduce(std::span<float> values) {
        if (world() > 1 && !values.empty()) backend_->all_reduce(values);
    }
    void all_reduce(std::span<double> values) {
        if (world() > 1 && !values.empty()) backend_->all_reduce(values);
    }

    /// Every rank ends with root's bytes. Throws ContractError for a root outside the world.
    void broadcast(std::span<std::byte> bytes, int root = 0) {
        if (root < 0 || root >= world())
            throw ContractError("root " + std::to_string(root), "Collective::broadcast",
                                "Name a rank below " + std::to_string(world()));
        if (world() > 1 && !bytes.empty()) backend_->broadcast(bytes, root);
    }

    /// Returns once every rank has called it.
    void barrier() {
        if (world() > 1) backend_->barrier();
    }

private:
    std::unique_ptr<B> backend_;
};

}  // namespace eyas
