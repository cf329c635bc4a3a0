#pragma once
#include <cstdint>
#include <string>

#include "eyas/checkpoint/config_json.hpp"
#include "eyas/checkpoint/state.hpp"
#include "eyas/loader/options.hpp"
#include "eyas/trainer/options.hpp"

namespace eyas {

/// What a resumed run must have in common with the run that wrote the checkpoint, so that it ends
/// with the same bits; or, in a world of another size, takes the same samples in each step
/// (identity_to_resume). Its numbers are the same but for rounding, then, where batches are of the
/// same samples or of one length: a batch's loss is a mean over its padded rows. `schedule` has its
/// total_steps resolved.
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

namespace detail {

/// How batches were made of samples, as Pipeline records it; empty where nobody did.
inline Json recorded_data(const Json& identity) {
    const auto run = identity.value("run", Json::object());
    return run.is_object() ? run.value("data", Json::object()) : Json::object();
}

/// Samples, or packed rows, in one batch of every rank; where the batch size is not recorded,
/// batches.
inline std::int64_t samples_per_round(const Json& identity, const std::string& where) {
    const auto data = recorded_data(identity);
    const auto world = required<std::int64_t>(identity, "world_size", where),
               batch = optional<std::int64_t>(data, "batch_size", 1, where);
    if (world < 1 || world > 1'000'000 || batch < 1 || batch > 1'000'000)
        throw DataError(
            "a world of " + std::to_string(world) + " with batches of " + std::to_string(batch),
            where, "Use another checkpoint");
    return world * batch;
}

/// Throws ContractError where an epoch ends otherwise in a world of another size: with a short
/// batch, or with samples that come twice so that all ranks have as many.
inline void require_whole_rounds(const Json& identity, const std::string& where) {
    const auto data = recorded_data(identity);
    if (optional<bool>(data, "drop_last", true, where)) return;
    const auto samples = optional<std::int64_t>(data, "samples", 0, where);
    if (!data.contains("pack_tokens") && samples > 0 &&
        samples % samples_per_round(identity, where) == 0)
        return;
    throw ContractError(
        "the short batch at the end of an epoch is trained, too, and would be "
        "another one with another number of processes",
        where, "Resume with as many processes as wrote the checkpoint");
}

/// What of an identity does not depend on how many ranks share the work: instead of the numbers of
/// one rank, samples per optimizer step and per epoch; of packed rows, whose number differs from
/// epoch to epoch, those that every rank's batch takes, of which an epoch is a multiple.
inline Json shared_identity(Json identity, const std::string& where) {
    require_whole_rounds(identity, where);
    // Doubles, so that hostile numbers do not overflow: exact for any true one.
    const auto round = static_cast<double>(samples_per_round(identity, where));
    if (recorded_data(identity).contains("pack_tokens")) identity["rows_per_round"] = round;
    const auto of_all = [&](const char* mine, const char* all) {
        const auto n = required<std::int64_t>(identity, mine, where);
        identity.erase(mine);
        identity[all] = static_cast<double>(n) * round;
    };
    of_all("accumulation", "samples_per_step");
    of_all("batches_per_epoch", "samples_per_epoch");
    identity.erase("world_size");
    auto& run = identity["run"];
    if (run.is_object() && run.contains("data") && run["data"].is_object())
        run["data"].erase("batch_size");
    return identity;
}

inline bool of_same_world(const Json& saved, const Json& mine) {
    return !saved.is_object() || saved.value("world_size", Json()) == mine.at("world_size");
}

/// The identity that a checkpoint must have so that the run `mine` may go on from it. In a world of
/// the same size, `mine`. In another one, whatever the checkpoint has, if both agree in all but the
/// ranks, their batch size and accumulation, and take the same samples in each step of an epoch.
/// Throws ContractError that names what differs, DataError where an identity is none.
inline Json identity_to_resume(const Json& saved, const Json& mine, const std::string& where) {
    if (of_same_world(saved, mine)) return mine;
    if (const auto d =
            first_difference(shared_identity(saved, where), shared_identity(mine, where)))
        throw ContractError(
            "the checkpoint was written by " + saved.at("world_size").dump() +
                " processes with other options: " + *d,
            where,
            "Resume with as many samples a step (ranks * batch size * accumulation) and an epoch");
    return saved;
}

/// Where each rank's loader goes on in the run `mine` after a checkpoint. A step takes the next
/// samples of the epoch's order, whatever the number of ranks; so what counts is how many were
/// taken. Throws ContractError where that is no whole number of batches.
inline LoaderPosition position_to_resume(const CheckpointState& saved, const Json& mine,
                                         const std::string& where) {
    if (of_same_world(saved.identity, mine)) return {saved.epoch, saved.batch};
    const auto before = samples_per_round(saved.identity, where),
               now = samples_per_round(mine, where);
    if (saved.batch < 0 || saved.batch > (std::int64_t{1} << 62) / before)
        throw DataError("batch " + std::to_string(saved.batch), where, "Use another checkpoint");
    const auto samples = saved.batch * before;
    if (samples % now != 0)
        throw ContractError(
            std::to_string(samples) +
                (recorded_data(mine).contains("pack_tokens") ? " packed rows" : " samples") +
                " of the epoch were trained, which is no multiple of " + std::to_string(now),
            where, "Resume with another number of ranks or another batch size");
    return {saved.epoch, samples / now};
}

}  // namespace detail

}  // namespace eyas
