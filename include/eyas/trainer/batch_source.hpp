#pragma once
#include <concepts>
#include <cstdint>

#include "eyas/loader/batch.hpp"

namespace eyas {

/// What the trainer and the evaluator need of a loader. `position()` is where the batch lies that
/// next() returns next; its fields are `epoch` and `batch`, and seek() takes one.
template <class L>
concept BatchSource = requires(L& l, const L& cl) {
    { l.next() } -> std::convertible_to<const Batch*>;  // nullptr at the end of the last epoch
    l.seek(cl.position());
    { cl.position().epoch } -> std::convertible_to<std::int64_t>;
    { cl.position().batch } -> std::convertible_to<std::int64_t>;
    { cl.batches_per_epoch() } -> std::convertible_to<std::int64_t>;
    { cl.stall_seconds() } -> std::convertible_to<double>;
};

}  // namespace eyas
