#pragma once
#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "eyas/capture/conversations.hpp"
#include "eyas/core/bfloat16.hpp"

namespace eyas {

/// Why a sequence ended: a stop token was drawn (it is part of the sequence), or it has as many new
/// tokens as may be.
enum class Finish { stop, length };

inline std::string_view name_of(Finish f) { return f == Finish::stop ? "stop" : "length"; }

/// Hidden states of every row of a sequence, rounded to bfloat16 as features are.
struct SequenceStates {
    std::vector<BFloat16> captured;  // [T, L*D] residual streams after the captured layers
    std::vector<BFloat16> last;      // [T, D] final state after the model's norm
};

/// A prompt with its answer.
struct GeneratedSequence {
    std::int64_t index = 0;               // of its request
    std::vector<std::int64_t> input_ids;  // [T] prompt, then what was drawn
    std::int64_t prompt_tokens = 0;
    Finish finish = Finish::length;
    SequenceStates states = {};  // empty where none were asked for

    std::int64_t tokens() const { return static_cast<std::int64_t>(input_ids.size()); }
    std::int64_t generated_tokens() const { return tokens() - prompt_tokens; }

    /// As it is trained on: mask 1 on every drawn token, the stop token included.
    Conversation conversation() const {
        Conversation c{input_ids, std::vector<std::int64_t>(input_ids.size(), 1)};
        std::fill_n(c.loss_mask.begin(), prompt_tokens, 0);
        return c;
    }
};

}  // namespace eyas
