#pragma once
#include <string>

#include "eyas/checkpoint/config_json.hpp"
#include "eyas/trainer/options.hpp"

namespace eyas {

/// What a resumed run must have in common with the run that wrote the checkpoint, so that it ends
/// with the same bits. `schedule` has its total_steps resolved.
inline Json run_identity(const TrainerOptions& o, const ScheduleOptions& schedule,
                         const ModelConfig& config, std::string_view precision, int world_size,
                         std::int64_t batches_per_epoch) {
    return {{"config", config_fields(config)},
            {"precision", precision},
            {"world_size", world_size},
            {"seed", o.seed},
            {"accumulation", o.accumulation},
            {"batches_per_epoch", batches_per_epoch},
            {"max_grad_norm", o.max_grad_norm},
            {"adamw",
             {{"beta1", o.adamw.beta1},
              {"beta2", o.adamw.beta2},
              {"epsilon", o.adamw.epsilon},
              {"weight_decay", o.adamw.weight_decay}}},
            {"schedule",
             {{"kind", name_of(schedule.kind)},
              {"base_rate", schedule.base_rate},
              {"total_steps", schedule.total_steps},
              {"warmup_ratio", schedule.warmup_ratio},
              {"decay_ratio", schedule.decay_ratio}}},
            {"run", o.identity}};
}

}  // namespace eyas
