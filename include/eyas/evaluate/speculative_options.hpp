#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "eyas/capture/sampling.hpp"
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
};

/// One text.
struct DecodedText {
    std::size_t index = 0;                // of the prompt
    std::vector<std::int64_t> input_ids;  // prompt and answer
    std::int64_t prompt_tokens = 0;
    Acceptance acceptance;  // of this text
};

}  // namespace eyas
