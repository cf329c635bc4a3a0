#pragma once
#include <concepts>
#include <cstdint>

#include "eyas/loader/batch.hpp"
#include "eyas/loader/options.hpp"

namespace eyas {

/// What the trainer and the evaluator need of a loader. `position()` is where the batch lies that
/// next() returns next; its fields are `epoch` and `batch`, and seek() takes one. A source of
/// unknown length may also offer at_hand(n): whether n more batches are there without waiting for
/// who makes them.
template <class L>
concept BatchSource = requires(L& l, const L& cl, std::int64_t step) {
    // nullptr at the end of the last epoch, and where waiting for it was interrupted.
    { l.next() } -> std::convertible_to<const Batch*>;
    { cl.interrupted() } -> std::convertible_to<bool>;
    l.seek(cl.position());
    // A checkpoint of that optimizer step contains all batches before the position.
    l.acknowledge(cl.position(), step);
    { cl.position().epoch } -> std::convertible_to<std::int64_t>;
    { cl.position().batch } -> std::convertible_to<std::int64_t>;
    { cl.batches_per_epoch() } -> std::convertible_to<std::int64_t>;  // 0: only the end will tell
    { cl.stall_seconds() } -> std::convertible_to<double>;
};

namespace detail {
/// Shows a model the batch that the loader has read for the time after the next step, where both
/// have a word for it.
template <class M, class L>
void show_ahead(M& model, L& loader) {
    if constexpr (requires { model.ahead(loader.ahead()); }) model.ahead(loader.ahead());
}

/// A position of the loader's own kind.
template <class L>
auto position_at(const L& loader, const LoaderPosition& at) {
    auto position = loader.position();
    position.epoch = at.epoch;
    position.batch = at.batch;
    return position;
}
}  // namespace detail

}  // namespace eyas
