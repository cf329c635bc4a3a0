#pragma once
#include <string>

#include "eyas/capture/capture_identity.hpp"
#include "eyas/capture/target_weights.hpp"

namespace eyas {

/// Throws ContractError, naming the first difference, unless `target` is the model whose states the
/// samples are. Reads all of its weights, a layer at a time; a directory with embedding and head
/// only, as a trainer needs no more, is compared by sizes and tokenizer: returns false then. Throws
/// DataError for a target that capture would refuse.
inline bool require_target(const CaptureConvention& c, const HfWeights& target) {
    auto here = c;
    const auto names = target_names(target);
    here.tokenizer = names.tokenizer;
    here.vocab_size = target.config().vocab_size;
    here.hidden_size = target.config().hidden_size;
    const bool whole = target.contains("model.layers.0.input_layernorm.weight");
    if (whole) here.target = fingerprint(target);
    if (const auto d = difference(c, here))
        throw ContractError("this is not the target that the samples were captured from, '" +
                                c.target_id + "': " + *d + " (of the samples, here)",
                            target.path().string(),
                            "Name that target, or capture the samples again with this one");
    return whole;
}

}  // namespace eyas
