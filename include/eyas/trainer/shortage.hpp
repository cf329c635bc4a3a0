#pragma once
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/trainer/agreement.hpp"
#include "eyas/trainer/batch_source.hpp"

namespace eyas::detail {

/// Why a loader of unknown length gave no whole step.
struct Shortage {
    std::int64_t batches = 0;  // that it gave
    bool interrupted = false;
    std::exception_ptr error = {};
};

/// The next batch for optimizer step `step`; nullptr, with the reason in `shortage`, where the data
/// are short and their length was not known (`open`). Throws what the loader throws, and
/// ContractError where it ends though its length was known.
template <BatchSource L>
const Batch* next_batch(L& loader, bool open, std::int64_t step, Shortage& shortage) {
    try {
        if (const Batch* batch = loader.next()) {
            ++shortage.batches;
            return batch;
        }
        shortage.interrupted = loader.interrupted();
    } catch (const TransportError&) {
        if (!open) throw;
        shortage.error = std::current_exception();
    }
    if (open) return nullptr;
    throw ContractError("the loader ended before optimizer step " + std::to_string(step),
                        "Trainer::run", "Give loader and trainer the same epochs");
}

/// What ranks say to each other when data are short on some of them: all end alike.
template <class C>
void share(C& collective, Shortage& mine) {
    mine.interrupted = any_rank(collective, mine.interrupted);
    if (any_rank(collective, mine.error != nullptr) && !mine.error)
        mine.error = std::make_exception_ptr(TransportError("another rank waited for data in vain",
                                                            "Trainer::run", "See its message"));
}

/// Whether the next `batches` batches may not have been made yet. Their number and a loader's word
/// (its at_hand(), where it has one) decide; data of known length are there.
template <BatchSource L>
bool may_wait_for_data(const L& loader, bool open, std::int64_t batches) {
    if constexpr (requires {
                      { loader.at_hand(batches) } -> std::convertible_to<bool>;
                  })
        return open && !loader.at_hand(batches);
    else
        return open;
}

/// Why optimizer step `step` is not made: what these samples (none: another rank's) gave.
[[noreturn]] inline void refuse_step(std::int64_t step, const std::string& what,
                                     const std::vector<std::string>& ids) {
    std::string list;
    for (const auto& id : ids) list += (list.empty() ? "" : ", ") + id;
    throw DataError(
        what + " at optimizer step " + std::to_string(step),
        "samples " + (list.empty() ? "of another rank" : list),
        "Check these samples' features; the weights are those of step " + std::to_string(step - 1));
}

}  // namespace eyas::detail
