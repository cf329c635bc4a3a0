#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "eyas/trainer/batch_source.hpp"
#include "eyas/trainer/options.hpp"

namespace eyas {

/// How long a run is, from its options and the size of the data.
struct TrainPlan {
    std::int64_t last_step = 0;    // the run ends after so many optimizer steps in all
    std::int64_t total_steps = 0;  // horizon of the schedule
    bool open = false;             // the data may end earlier: a stream, whose length is not known

    /// 0 where only the end of the data will tell.
    std::int64_t known_last_step() const { return last_step == unlimited ? 0 : last_step; }
    static constexpr auto unlimited = std::numeric_limits<std::int64_t>::max();
};

namespace detail {
/// The plan for data of unknown length.
inline TrainPlan open_plan(const TrainerOptions& o) {
    if (o.epochs != 1)
        throw ContractError(std::to_string(o.epochs) + " epochs of data that come once",
                            "TrainerOptions", "Use one epoch, or train on the finished manifest");
    TrainPlan plan{.last_step = o.max_steps > 0 ? o.max_steps : TrainPlan::unlimited,
                   .total_steps = o.schedule.total_steps > 0 ? o.schedule.total_steps : o.max_steps,
                   .open = true};
    if (plan.total_steps > 0) return plan;
    if (o.schedule.kind != ScheduleKind::Constant || o.schedule.warmup_ratio > 0)
        throw ContractError("the number of steps is not known before the stream ends, and the " +
                                std::string(name_of(o.schedule.kind)) +
                                " schedule with a warm-up ratio of " +
                                std::to_string(o.schedule.warmup_ratio) + " depends on it",
                            "TrainerOptions",
                            "Give schedule.total_steps or max_steps (--total-steps, --max-steps), "
                            "or a constant rate without warm-up");
    plan.total_steps = 1;  // of no meaning to a constant rate
    return plan;
}

/// The plan for so many batches in all.
inline TrainPlan closed_plan(const TrainerOptions& o, std::int64_t batches) {
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
}  // namespace detail

/// Gradient accumulation goes on across epochs. Throws ContractError when the data give no step,
/// or would end in the middle of one and leave batches untrained without a word (as the reference
/// refuses it too): set max_steps then. Data of unknown length (0 batches) need a horizon for the
/// schedule.
inline TrainPlan make_plan(const TrainerOptions& o, std::int64_t batches_per_epoch) {
    if (batches_per_epoch == 0) return detail::open_plan(o);
    return detail::closed_plan(o, batches_per_epoch * o.epochs);
}

/// The same for what a loader gives, whose epochs may differ in length.
template <BatchSource L>
TrainPlan make_plan(const TrainerOptions& o, const L& loader) {
    if constexpr (requires { loader.batches_in_epochs(o.epochs); })
        if (loader.batches_per_epoch() > 0)
            return detail::closed_plan(o, loader.batches_in_epochs(o.epochs));
    return make_plan(o, loader.batches_per_epoch());
}

}  // namespace eyas
