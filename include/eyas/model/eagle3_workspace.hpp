#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <vector>

#include "eyas/core/arena.hpp"
#include "eyas/device/recording.hpp"
#include "eyas/model/decoder_step.hpp"
#include "eyas/model/distillation_heads.hpp"
#include "eyas/model/eagle3_batch.hpp"
#include "eyas/ops/attention.hpp"
#include "eyas/ops/rotary.hpp"

namespace eyas {

/// Parts of a step of which a batch decides no more than StepWork says: the hidden states of all
/// TTT steps; the backward of those but the first.
enum class StepPart { Forward, Backward };
struct StepWork {
    StepPart part;
    std::int64_t batch, tokens;
    bool leading_keys;
    bool operator==(const StepWork&) const = default;
};

/// What the steps of an Eagle3 work in; nothing of it lives longer than a step. Without memory
/// until an arena is built with lay_out(), so that one can be made only to plan. Keeps references
/// to what it is made of.
template <Device D, class T>
struct Eagle3Workspace {
    Eagle3Workspace(const D& device, const ModelConfig& c, const Eagle3Options& o,
                    const VocabMap& map)
        : config(c),
          step(device, c, o.activations),
          heads(device, c, o, map),
          activations(static_cast<std::size_t>(o.ttt_length)),
          angles(activations.size()),
          head_gradients(activations.size()),
          own_memory(device.memory() != nullptr),
          replays(o.replay_steps) {}

    /// The part's work, which f does, for the batch that is here. A replay sets no array's size, so
    /// nothing may ask for one that f sets. `trains`: of a step, whose shapes come again; held-out
    /// batches have shapes of their own, and take no recording's place.
    template <class F>
    void replayed(const D& device, StepPart part, const F& f, bool trains = true) {
        replays.run(device, {part, batch.batch, batch.tokens, batch.leading_keys}, f, trains);
    }

    /// Memory for batches of up to `rows` rows; after replays.forget(), where there was some.
    void lay_out(Arena& arena, std::int64_t rows) {
        const auto d = config.hidden_size, dt = config.target_hidden_size;
        constexpr const char* part = "projected states and rotation";
        batch.lay_out(arena, config, rows, own_memory);
        arena.give(projected, rows * d, part);
        for (auto& a : angles) a.lay_out(arena, rows, config.head_dim, part);
        if (config.fc_norm)
            arena.give(normed, rows * 3 * dt, part), arena.give(fc_rms, rows * 3, part);
        if (!std::same_as<T, float>)
            arena.give(scratch, rows * (config.fc_norm ? std::max(d, 3 * dt) : d), part);
        step.lay_out(arena, activations, rows);
        for (auto& g : head_gradients) arena.give(g, rows * d, "gradients of the heads");
        heads.lay_out(arena, rows);
    }

    /// What threads and products of the host hold besides the arena, by part.
    template <class Plan>
    void plan_scratch([[maybe_unused]] Plan& parts, [[maybe_unused]] const D& device,
                      [[maybe_unused]] std::int64_t rows) const {
        if constexpr (requires { device.threads(); }) {
            const auto& c = config;
            const auto steps = static_cast<std::int64_t>(activations.size());
            const auto each = detail::AttentionScratch::bytes(rows, c.head_dim, steps);
            parts.push_back(
                {"attention, of all threads", static_cast<std::uint64_t>(each * device.threads())});
            if constexpr (std::same_as<T, float>) return;  // bfloat16 products widen both operands
            const auto d = c.hidden_size, dt = c.target_hidden_size, f = c.intermediate_size,
                       w = c.draft_vocab_size, qkv = step.qkv_width();
            const auto tile = std::min(rows, DistillationHeads<D, T>::tile_rows);
            const auto left = std::max(rows * std::max({2 * f, 3 * dt, qkv}), tile * w);
            const auto right = std::max({w * std::max(d, dt), 2 * f * d, 3 * dt * d, qkv * 2 * d,
                                         rows * std::max({f, 3 * dt, 2 * d})});
            parts.push_back({"widened operands", static_cast<std::uint64_t>(4 * (left + right))});
        }
    }

    const ModelConfig& config;
    Eagle3Batch<T> batch;
    DecoderStep<D, T> step;
    DistillationHeads<D, T> heads;
    std::vector<StepActivations<T>> activations;  // K
    std::vector<RotaryRows> angles;               // K
    std::vector<ArenaArray<T>> head_gradients;    // K of [N, D]
    ArenaArray<T> projected, normed;              // [N, D], [N, 3Dt]
    ArenaArray<float> fc_rms;                     // [3, N]
    RoundingScratch scratch;
    bool own_memory;  // the device's
    Replays<D, StepWork> replays;
};

}  // namespace eyas
