#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "eyas/sample/sample_ref.hpp"

namespace eyas {

/// Keeps account of the samples whose training is durable: a checkpoint on disk contains it, and
/// no later epoch asks for them again. A loader calls it from the thread that calls the loader, in
/// this order: taken(), then each sample is freed, then freed(). Whatever comes in between, the
/// same calls come again when the run is resumed. What it throws ends the run.
class AcknowledgementSink {
public:
    virtual ~AcknowledgementSink() = default;

    /// The checkpoint of optimizer step `step` contains these samples and all before them. Called
    /// at each checkpoint and at each resume, also without samples; samples may come again.
    virtual void taken(std::span<const SampleRef* const> refs, std::int64_t step) = 0;
    /// The store no longer has them.
    virtual void freed(std::span<const SampleRef* const> refs) = 0;
    /// Whether freed() was called for it, in this run or an earlier one: it is not freed again.
    virtual bool is_freed(const SampleRef& ref) const = 0;
};

namespace detail {
/// Tells `sink` (which may be none) of samples, and frees them where the store is consume-once.
template <class S>
void acknowledge_samples(S& store, AcknowledgementSink* sink,
                         std::span<const SampleRef* const> refs, std::int64_t step) {
    if (sink) sink->taken(refs, step);
    std::vector<const SampleRef*> freed;
    for (const auto* ref : refs)
        if (!(sink && sink->is_freed(*ref)) && store.consume(*ref)) freed.push_back(ref);
    if (sink && !freed.empty()) sink->freed(freed);
}
}  // namespace detail

}  // namespace eyas
