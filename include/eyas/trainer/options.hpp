#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

#include "eyas/core/json.hpp"
#include "eyas/core/span.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/optimizer/schedule.hpp"

namespace eyas {

/// What to do about checkpoints that already lie in the run directory.
enum class Resume {
    Never,      // refuse to start beside them (ContractError)
    IfPresent,  // go on from the latest good one, or start afresh where there is none
    Require     // go on from the latest good one (ContractError where there is none)
};

/// Defaults are the reference's. Fields marked * are recorded in checkpoints: a resumed run must
/// have the same, or it would not end with the same weights; in a world of another size, see
/// detail::identity_to_resume.
struct TrainerOptions {
    ScheduleOptions schedule;       // * schedule.total_steps 0: max_steps, else what the data gives
    AdamWOptions adamw;             // *
    double max_grad_norm = 0.5;     // * 0: no clipping
    std::int64_t accumulation = 1;  // * A: batches per optimizer step
    std::int64_t epochs = 1;        // passes over the data; the loader must have the same
    std::int64_t max_steps = 0;     // optimizer steps in all, 0: until the epochs end
    std::uint64_t seed = 0;         // * what the model and the loader were seeded with
    Json identity = Json::object();  // * anything else a resume must match: data, model options

    std::int64_t log_interval = 10;     // optimizer steps; 0: never
    std::int64_t save_interval = 0;     // optimizer steps; 0: only at the end
    std::int64_t keep_checkpoints = 3;  // latest ones to keep; 0: all
    bool async_checkpoints = true;  // write them from a copy of the state while training goes on
    std::filesystem::path run_dir;  // checkpoint-{step} directories go here; empty: none
    Resume resume = Resume::IfPresent;
    // Of gradients that ranks exchange in one call, at most. Not recorded, but the norm is summed
    // piece by piece: with another value it may differ in its last bit, and so may what is clipped.
    std::int64_t bucket_bytes = 4 << 20;
    SpanListener* trace = nullptr;  // told what is done when; outlives the trainer
};

/// Whether a trainer with these options holds a copy of its state, on rank 0, from which it writes
/// checkpoints while it trains. (The last one of a run is written from the state itself.)
inline bool copies_checkpoints(const TrainerOptions& o) {
    return o.async_checkpoints && o.save_interval > 0 && !o.run_dir.empty();
}

/// Throws ContractError for numbers that make no sense.
inline void check_trainer_options(const TrainerOptions& o) {
    const auto at_least = [](std::int64_t value, std::int64_t least, const char* name) {
        if (value < least)
            throw ContractError(std::string(name) + " is " + std::to_string(value),
                                "TrainerOptions", "Use at least " + std::to_string(least));
    };
    at_least(o.accumulation, 1, "accumulation");
    at_least(o.epochs, 1, "epochs");
    at_least(o.max_steps, 0, "max_steps");
    at_least(o.schedule.total_steps, 0, "schedule.total_steps");
    at_least(o.log_interval, 0, "log_interval");
    at_least(o.save_interval, 0, "save_interval");
    at_least(o.keep_checkpoints, 0, "keep_checkpoints");
    at_least(o.bucket_bytes, 1, "bucket_bytes");
    if (!(o.max_grad_norm >= 0))
        throw ContractError("max_grad_norm is " + std::to_string(o.max_grad_norm), "TrainerOptions",
                            "Use 0 (off) or more");
}

}  // namespace eyas
