#pragma once
#include <algorithm>
#include <cstdint>
#include <string>

#include "eyas/format/hf_config.hpp"

namespace eyas {

/// What distinguishes the layers of one Llama-like architecture from another's.
struct TargetFamily {
    bool qkv_bias = false;     // of q, k and v
    bool output_bias = false;  // of the attention's output
    bool mlp_bias = false;     // of gate, up and down
    bool head_norms = false;   // q and k are normed, each head by itself, before they are rotated
};

/// Tokens that a sequence may have: as many as the model has positions, and no more than its
/// attention window, up to which windowed layers compute what full attention does.
inline std::int64_t longest_sequence(const ModelConfig& c) {
    return std::min(c.max_position_embeddings,
                    c.sliding_window.value_or(c.max_position_embeddings));
}

namespace detail {
/// What longest_sequence() is, in words.
inline std::string longest_sequence_text(const ModelConfig& c) {
    const auto longest = longest_sequence(c);
    return longest < c.max_position_embeddings
               ? "attention window of " + std::to_string(longest) + " tokens"
               : std::to_string(longest) + " positions";
}
}  // namespace detail

/// Throws DataError for a sequence that is longer than longest_sequence().
inline void check_sequence_length(const ModelConfig& c, std::int64_t tokens) {
    if (tokens <= longest_sequence(c)) return;
    throw DataError("a sequence of " + std::to_string(tokens) + " tokens", "input_ids",
                    "Cut it to the model's " + detail::longest_sequence_text(c) + " (--max-len)");
}

namespace detail {

inline void check_target_rope(const ModelConfig& c, const std::string& where) {
    const auto& type = c.rope_scaling.type;
    if (type != "default" && type != "linear" && type != "llama3")
        throw DataError("rope type '" + type + "' is not supported for a target", where,
                        "Use a model with default, linear or llama3 rope");
    const auto positive = [&](double v, const char* key) {
        if (!(v > 0))
            throw DataError(std::string(key) + " is " + std::to_string(v), where,
                            "Give a positive number");
    };
    positive(c.rope_theta, "rope_theta");
    if (type == "default") return;
    positive(c.rope_scaling.number("factor", where), "factor");
    if (type == "linear") return;
    for (const char* key : {"low_freq_factor", "high_freq_factor"})
        positive(c.rope_scaling.number(key, where), key);
    positive(c.rope_scaling.number("original_max_position_embeddings", where),
             "original_max_position_embeddings");
}

/// Keys of a config that change the forward in a way that no family here has.
inline void check_no_other_forward(const Json& json, const std::string& where) {
    for (const Json& object : {json, json.value("rope_parameters", Json())})
        if (optional<double>(object, "partial_rotary_factor", 1, where) != 1)
            throw DataError("partial_rotary_factor is not 1", where,
                            "Use a model that rotates whole heads");
    if (!json.value("quantization_config", Json()).is_null())
        throw DataError("the weights are quantised (quantization_config)", where,
                        "Use the model in bfloat16, float16 or float32");
}

}  // namespace detail

/// By the config's model_type: llama (attention_bias and mlp_bias as they say), mistral (no bias),
/// qwen2 (biases of q, k, v), qwen3 (norms of heads; attention_bias). Source: the layers that
/// Hugging Face has under these names. Throws DataError for any other, and for what would make the
/// forward another than theirs.
inline TargetFamily target_family(const ModelConfig& c) {
    const std::string where = "target model's config.json";
    detail::check_target_rope(c, where);
    if (c.source.is_object()) detail::check_no_other_forward(c.source, where);
    TargetFamily f;
    if (c.model_type == "llama") {
        f.qkv_bias = f.output_bias = c.attention_bias;
        f.mlp_bias = c.mlp_bias;
    } else if (c.model_type == "qwen2") {
        f.qkv_bias = true;
    } else if (c.model_type == "qwen3") {
        f.qkv_bias = f.output_bias = c.attention_bias;
        f.head_norms = true;
    } else if (c.model_type != "mistral") {
        throw DataError("model_type '" + c.model_type + "' is not supported", where,
                        "Use a model of type llama, mistral, qwen2 or qwen3");
    }
    return f;
}

}  // namespace eyas
