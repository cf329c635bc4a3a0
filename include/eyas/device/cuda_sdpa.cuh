#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "eyas/device/sdpa.hpp"

namespace eyas {

/// What a library made of one shape.
class SdpaPlan {
public:
    virtual ~SdpaPlan() = default;
    virtual std::size_t workspace_bytes() const = 0;
    /// Queues the work. Throws ResourceError that names the call.
    virtual void execute(const SdpaArrays& arrays, void* workspace, cudaStream_t stream) = 0;
};

/// A library of causal attention, chosen for bfloat16. It keeps scores in fp32 and rounds elsewhere
/// than the reference, so the numbers differ within bfloat16's error from the own strips'. One
/// thread.
class SdpaLibrary {
public:
    virtual ~SdpaLibrary() = default;
    virtual std::string name() const = 0;
    /// nullptr: it does not take the shape, `why` says why. Throws ResourceError where it failed.
    virtual std::unique_ptr<SdpaPlan> plan(const SdpaShape& shape, std::string& why) = 0;
};

/// How a GPU attended: calls that the library took, calls that it was asked for and refused, and
/// the last refusal.
struct SdpaUse {
    std::string library = "own strips";
    std::int64_t taken = 0, refused = 0;
    std::string why;

    std::string text() const {
        return library + ", " + std::to_string(taken) + " calls" +
               (refused ? ", " + std::to_string(refused) + " by own strips (" + why + ")" : "");
    }
};

/// Is told the use so far when the library refuses a call for the first time after it was chosen:
/// in mid-step, by the thread that computes. It may not use the GPU nor choose attention; what it
/// throws ends the step. It stays with the GPU's context until attention is chosen anew.
using SdpaRefusal = std::function<void(const SdpaUse&)>;

namespace detail {

/// The library that was chosen and its plans, also that there is none. One thread.
class SdpaPlans {
public:
    static constexpr std::size_t most = 512;  // shapes, each direction one

    /// nullptr: own strips. `on_refusal` hears why the first call is refused, when it is.
    void choose(std::shared_ptr<SdpaLibrary> library, SdpaRefusal on_refusal) {
        forget();
        library_ = std::move(library);
        on_refusal_ = std::move(on_refusal);
        use_ = {};
        if (library_) use_.library = library_->name();
    }
    /// No room for the plan of one more shape: forget(), when no plan is in use.
    bool full(const SdpaShape& shape) const {
        return plans_.size() >= most && !plans_.contains(shape);
    }
    void forget() {
        plans_.clear();
        ++choices_;  // recordings name their kernels
    }
    bool chosen() const { return library_ != nullptr; }
    std::uint64_t choices() const { return choices_; }  // another where plans went
    const SdpaUse& use() const { return use_; }

    bool find(const SdpaShape& shape) {
        if (!library_) return false;
        auto it = plans_.find(shape);
        if (it == plans_.end()) {
            Found found;
            if (shape.leading_keys)
                found.plan = library_->plan(shape, found.why);
            else
                found.why = "rows of several documents, or keys that are not the first ones";
            it = plans_.emplace(shape, std::move(found)).first;
        }
        if (it->second.plan) return true;
        use_.why = it->second.why;
        if (++use_.refused == 1 && on_refusal_) on_refusal_(use_);
        return false;
    }
    /// Of a shape that was found.
    SdpaPlan& plan(const SdpaShape& shape) {
        ++use_.taken;
        return *plans_.at(shape).plan;
    }

private:
    struct Found {
        std::unique_ptr<SdpaPlan> plan;
        std::string why;
    };
    std::shared_ptr<SdpaLibrary> library_;
    std::map<SdpaShape, Found> plans_;
    SdpaUse use_;
    SdpaRefusal on_refusal_;
    std::uint64_t choices_ = 0;
};

}  // namespace detail

}  // namespace eyas
