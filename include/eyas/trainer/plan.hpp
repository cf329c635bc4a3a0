#pragma once
#include <algorithm>
#include <cstdint>
#include <string>

#include "eyas/trainer/options.hpp"

namespace eyas {

/// How long a run is, from its options and the size of the data.
struct TrainPlan {
    std::int64_t last_step = 0;    // the run ends after so many optimizer steps in all
    std::int64_t total_steps = 0;  // horizon of the schedule
};

/// Gradient accumulation goes on across epochs. Throws ContractError when the data give no step,
/// or would end in the middle of one and leave batches untrained without a word (as the reference
/// refuses it too): set max_steps then.
inline TrainPlan make_plan(const TrainerOptions& o, std::int64_t batches_per_epoch) {
    const auto batches = batches_per_epoch * o.epochs;
    const auto whole = batches / o.accumulation;
    const auto counts =
        std::to_string(batches) + " batches with accumulation " + std::to_string(o.accumulation);
    if (whole == 0)
        throw ContractError(counts + " give no optimizer step", "TrainerOptions",
                            "Use more data, more epochs, smaller batches or less accumulation");
    if (batches % o.accumulation != 0 && (o.max_steps == 0 || o.max_steps > whole))
        throw ContractError(counts + " end in the middle of an optimizer step", "TrainerOptions",
                            "Set max_steps to at most " + std::to_string(whole) +
                                " or change epochs, batch size or accumulation");
    TrainPlan plan;
    plan.last_step = o.max_steps > 0 ? std::min(o.max_steps, whole) : whole;
    plan.total_steps = o.schedule.total_steps > 0 ? o.schedule.total_steps
                       : o.max_steps > 0          ? o.max_steps
                                                  : whole;
    return plan;
}

}  // namespace eyas
