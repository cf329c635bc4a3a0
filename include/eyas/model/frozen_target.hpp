#pragma once
#include <memory>
#include <string>

#include "eyas/core/tensor.hpp"
#include "eyas/format/hf_weights.hpp"

namespace eyas {

/// The two tensors of the target that training needs, neither of them trained. The views live as
/// long as whoever made them says; Eagle3 copies what it keeps.
struct FrozenTarget {
    TensorView embed_tokens;  // [V, D] float32, bfloat16 or float16
    TensorView lm_head;       // [V, Dt]

    /// From a Hugging Face model directory; a tied head is the embedding. `weights` must outlive
    /// the views. Throws DataError when neither name exists.
    static FrozenTarget of(const HfWeights& weights) {
        FrozenTarget t;
        t.embed_tokens = weights.at("model.embed_tokens.weight");
        t.lm_head =
            weights.contains("lm_head.weight") ? weights.at("lm_head.weight") : t.embed_tokens;
        return t;
    }
};

}  // namespace eyas
