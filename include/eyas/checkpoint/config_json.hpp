#pragma once
#include <optional>
#include <string>

#include "eyas/core/json.hpp"
#include "eyas/format/hf_config.hpp"

namespace eyas {

/// The fields of a config that decide what a draft computes and how large it is.
inline Json config_fields(const ModelConfig& c) {
    return {{"hidden_size", c.hidden_size},
            {"intermediate_size", c.intermediate_size},
            {"num_hidden_layers", c.num_hidden_layers},
            {"num_attention_heads", c.num_attention_heads},
            {"num_key_value_heads", c.num_key_value_heads},
            {"head_dim", c.head_dim},
            {"vocab_size", c.vocab_size},
            {"draft_vocab_size", c.draft_vocab_size},
            {"target_hidden_size", c.target_hidden_size},
            {"max_position_embeddings", c.max_position_embeddings},
            {"rms_norm_eps", c.rms_norm_eps},
            {"rope_theta", c.rope_theta},
            {"rope_scaling", c.rope_scaling.fields},
            {"fc_norm", c.fc_norm},
            {"norm_output", c.norm_output}};
}

/// The draft's config.json: the object it was read from, or its fields where it was made in code.
inline Json config_json(const ModelConfig& c) {
    if (!c.source.empty()) return c.source;
    Json j = config_fields(c);
    if (c.rope_scaling.fields.empty()) j["rope_scaling"] = nullptr;
    j["initializer_range"] = c.initializer_range;
    j["tie_word_embeddings"] = c.tie_word_embeddings;
    j["hidden_act"] = "silu";
    j["model_type"] = "llama";
    j["architectures"] = {"LlamaForCausalLMEagle3"};
    return j;
}

/// "schedule.total_steps: saved 20, now 30" for the first field in which two objects differ;
/// nothing where they are equal.
inline std::optional<std::string> first_difference(const Json& saved, const Json& now,
                                                   const std::string& field = "") {
    if (saved == now) return std::nullopt;
    if (saved.is_object() && now.is_object()) {
        Json keys = saved;
        keys.update(now);
        for (const auto& [key, unused] : keys.items()) {
            const auto name = field.empty() ? key : field + "." + key;
            if (auto d = first_difference(saved.value(key, Json()), now.value(key, Json()), name))
                return d;
        }
    }
    return field + ": saved " + saved.dump() + ", now " + now.dump();
}

}  // namespace eyas
