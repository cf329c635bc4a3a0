#pragma once
#include <cstdint>
#include <vector>

#include "eyas/core/arena.hpp"
#include "eyas/format/hf_config.hpp"
#include "eyas/model/eagle3_options.hpp"

namespace eyas {

/// What one TTT step leaves for its backward. Under Activations::Recompute only hidden and kv of
/// each step are memory of its own; the rest is shared by all steps, and computed again.
template <class T>
struct StepActivations {
    ArenaArray<std::int64_t> ids;  // [N] token whose embedding each row reads
    ArenaArray<T> qkv;             // [N, (H+2G)E] rotated q, rotated k, v
    ArenaArray<T> kv;              // [N, 2*G*E] the same k, v; Recompute only
    ArenaArray<T> attended;        // [N, H*E]
    ArenaArray<T> middle;          // [N, D] after the attention residual
    ArenaArray<T> gate_up;         // [N, 2F]
    ArenaArray<T> hidden;          // [N, D] the step's result, before any norm
    ArenaArray<float> log_sum;     // [B, H, T]
    ArenaArray<float> rms_embedding, rms_hidden, rms_middle;  // [N] inverse rms of the three norms
    ArenaArray<float> dk, dv;  // [N, G*E] gradients of this step's keys and values on the diagonal
};

/// Memory for up to `n` rows of each step.
template <class T>
void lay_out_activations(Arena& arena, std::vector<StepActivations<T>>& steps, const ModelConfig& c,
                         Activations policy, std::int64_t n) {
    const auto d = c.hidden_size, kv = c.num_key_value_heads * c.head_dim,
               q = c.num_attention_heads * c.head_dim;
    const bool recompute = policy == Activations::Recompute;
    constexpr const char* kept = "activations of the TTT steps";
    for (auto& s : steps) {
        const bool first = &s == &steps.front();
        if (recompute && !first) {
            s = steps.front();
        } else {
            arena.give(s.ids, n, kept), arena.give(s.qkv, n * (q + 2 * kv), kept);
            arena.give(s.attended, n * q, kept), arena.give(s.middle, n * d, kept);
            arena.give(s.gate_up, n * 2 * c.intermediate_size, kept);
            arena.give(s.log_sum, n * c.num_attention_heads, kept);
            for (auto* rms : {&s.rms_embedding, &s.rms_hidden, &s.rms_middle})
                arena.give(*rms, n, kept);
        }
        arena.give(s.hidden, n * d, kept);
        if (recompute) arena.give(s.kv, n * 2 * kv, kept);
        if (!first)
            for (auto* g : {&s.dk, &s.dv}) arena.give(*g, n * kv, "gradients of keys and values");
    }
}

}  // namespace eyas
