#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "eyas/capture/sampling.hpp"
#include "eyas/capture/target_family.hpp"
#include "eyas/core/error.hpp"
#include "eyas/evaluate/acceptance.hpp"
#include "eyas/evaluate/draft_shape.hpp"
#include "eyas/evaluate/verification.hpp"

namespace eyas {

/// What and how to decode.
struct SpeculativeOptions {
    DraftShape shape = DraftShape::chain(5);  // none(): plain decoding, to compare with
    SamplingOptions sampling;
    Verification verification = Verification::Match;
    std::int64_t max_new_tokens = 128;
    std::vector<std::int64_t> stop_ids = {};  // end a text; the first of them is its last token
    std::int64_t sequences = 1;               // decoded side by side
    const std::atomic<bool>* stop = nullptr;  // looked at between rounds

    /// Throws ContractError for what is out of range, or does not go together.
    void check() const {
        sampling.check();
        shape.check();
        if (max_new_tokens < 1 || sequences < 1 || sequences > 4096)
            throw ContractError(std::to_string(max_new_tokens) + " tokens, " +
                                    std::to_string(sequences) + " sequences",
                                "SpeculativeOptions", "Use 1 or more, and up to 4096 sequences");
        if (verification == Verification::Rejection && !shape.is_chain())
            throw ContractError("rejection sampling of " + shape.text(), "SpeculativeOptions",
                                "Use a chain, or accept by exact match");
    }
};

/// A prompt and its answer have no more tokens: positions that both models have.
inline std::int64_t decodable_positions(const ModelConfig& target, const ModelConfig& draft) {
    return std::min(longest_sequence(target), draft.max_position_embeddings);
}

/// One text.
struct DecodedText {
    std::size_t index = 0;                // of the prompt
    std::vector<std::int64_t> input_ids;  // prompt and answer
    std::int64_t prompt_tokens = 0;
    Acceptance acceptance;  // of this text
};

}  // namespace eyas
