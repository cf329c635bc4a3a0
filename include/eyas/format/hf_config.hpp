#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "eyas/core/json.hpp"

namespace eyas {

/// How rotary angles are scaled: the `rope_scaling` object of a Hugging Face config. `type` is one
/// of default, linear, dynamic, llama3, yarn, mrope; fields that a type does not use stay unset.
struct RopeScaling {
    std::string type = "default";
    Json fields = Json::object();  // the object as it was read, for writing back

    double number(const char* key, const std::string& where) const {
        return required<double>(fields, key, where);
    }
    double number_or(const char* key, double fallback) const {
        return optional<double>(fields, key, fallback, "rope_scaling");
    }
};

/// A Llama-style config.json, as much as a draft or target forward needs. One struct for both: the
/// draft adds draft_vocab_size, target_hidden_size, fc_norm and norm_output.
/// Source: Hugging Face LlamaConfig; SpecForge's draft configs for the additions.
struct ModelConfig {
    std::int64_t hidden_size = 0;        // D
    std::int64_t intermediate_size = 0;  // F
    std::int64_t num_hidden_layers = 1;
    std::int64_t num_attention_heads = 0;  // H
    std::int64_t num_key_value_heads = 0;  // G
    std::int64_t head_dim = 0;             // E
    std::int64_t vocab_size = 0;           // V
    std::int64_t draft_vocab_size = 0;     // W; equal to V where the key is absent
    std::int64_t target_hidden_size = 0;   // width of one captured state; D where absent
    std::int64_t max_position_embeddings = 2048;
    double rms_norm_eps = 1e-6;
    double rope_theta = 10000.0;
    RopeScaling rope_scaling;
    double initializer_range = 0.02;
    bool tie_word_embeddings = false;
    bool fc_norm = false;
    bool norm_output = true;
    std::string model_type = "llama";
    bool attention_bias = false, mlp_bias = false;  // as read; what they mean depends on model_type
    // What attention sees of each token where some layer is windowed: that token and the ones
    // before it, so many in all. Nothing where every layer sees everything.
    std::optional<std::int64_t> sliding_window;
    Json source = Json::object();  // the whole object as it was read, for export
};

/// From a parsed config.json. `where` names the file in errors. Throws DataError for missing keys,
/// sizes that are not positive, heads that do not divide, an unknown activation, rope type or type
/// of layer.
inline ModelConfig parse_model_config(const Json& json, const std::string& where);

inline ModelConfig read_model_config(const std::filesystem::path& file) {
    return parse_model_config(read_json_file(file), file.string());
}

namespace detail {
inline RopeScaling parse_rope_scaling(const Json& json, const std::string& where) {
    RopeScaling r;
    const auto object = [&](const char* key) {
        auto value = json.value(key, Json());
        if (!value.is_null() && !value.is_object())
            throw DataError(std::string(key) + " is not an object", where,
                            "Write null or an object with rope_type");
        return value;
    };
    const auto type_of = [&](const Json& fields) {
        return optional<std::string>(
            fields, "rope_type", optional<std::string>(fields, "type", "default", where), where);
    };
    const auto older = object("rope_scaling"), newer = object("rope_parameters");
    if (older.is_null() && newer.is_null()) return r;
    r.fields = older.is_null() ? newer : older;
    r.type = type_of(r.fields);
    for (const auto& [key, value] : newer.items())
        if (value.is_object())
            throw DataError("rope_parameters differ by kind of layer ('" + key + "')", where,
                            "Use a model whose layers share one rope");
    const auto comparable = [&](Json fields) {
        for (const char* key : {"rope_theta", "type", "rope_type"}) fields.erase(key);
        return fields;
    };
    if (!older.is_null() && !newer.is_null() &&
        (type_of(newer) != r.type || comparable(newer) != comparable(older)))
        throw DataError("rope_scaling and rope_parameters describe different ropes", where,
                        "Leave one of them out, or make them agree");
    for (const char* known : {"default", "linear", "dynamic", "llama3", "yarn", "mrope"})
        if (r.type == known) return r;
    throw DataError("unknown rope type '" + r.type + "'", where,
                    "Use default, linear, dynamic, llama3, yarn or mrope");
}

/// rope_theta, or where newer configs have it: in rope_parameters.
inline double parse_rope_theta(const Json& json, double fallback, const std::string& where) {
    const auto parameters = json.value("rope_parameters", Json());
    const auto newer =
        parameters.is_object() ? optional<double>(parameters, "rope_theta", 0, where) : 0;
    const auto older = optional<double>(json, "rope_theta", newer > 0 ? newer : fallback, where);
    if (newer > 0 && newer != older)
        throw DataError("rope_theta is " + std::to_string(older) + ", in rope_parameters " +
                            std::to_string(newer),
                        where, "Leave one of them out, or make them agree");
    return older;
}

/// Whether any layer has an attention window, where the config lists its layers' types; nothing
/// where it does not.
inline std::optional<bool> any_sliding_layer(const Json& json, const std::string& where) {
    if (json.value("layer_types", Json()).is_null()) return std::nullopt;
    const auto types = required<std::vector<std::string>>(json, "layer_types", where);
    for (const auto& type : types)
        if (type != "full_attention" && type != "sliding_attention")
            throw DataError("layer type '" + type + "' is not supported", where,
                            "Use a model of full_attention and sliding_attention layers");
    return std::ranges::find(types, "sliding_attention") != types.end();
}

/// ModelConfig::sliding_window, by each model type's rules and defaults for absent keys. Mistral
/// has one in every layer, unless it is null; Qwen in the layers from max_window_layers on, or that
/// layer_types lists, and only where use_sliding_window is true; others ignore the keys.
inline std::optional<std::int64_t> parse_sliding_window(const Json& json, const ModelConfig& c,
                                                        const std::string& where) {
    const auto listed = any_sliding_layer(json, where);
    const bool qwen = c.model_type == "qwen2" || c.model_type == "qwen3";
    if (!qwen && c.model_type != "mistral") return std::nullopt;
    if (qwen) {
        const bool used = optional<bool>(json, "use_sliding_window", false, where);
        const auto first = optional<std::int64_t>(json, "max_window_layers", 28, where);
        if (listed.value_or(false) && !used)
            throw DataError("layer_types has sliding_attention, use_sliding_window is false", where,
                            "Make them agree");
        if (!used || !listed.value_or(first < c.num_hidden_layers)) return std::nullopt;
    }
    if (json.contains("sliding_window") && json.at("sliding_window").is_null()) return std::nullopt;
    const auto window = optional<std::int64_t>(json, "sliding_window", 4096, where);
    if (window < 1)
        throw DataError("sliding_window is " + std::to_string(window), where,
                        "Write null or a positive number of tokens");
    return window;
}

inline void check_model_config(const ModelConfig& c, const std::string& where) {
    const auto positive = [&](std::int64_t v, const char* key) {
        if (v <= 0 || v > (std::int64_t{1} << 31))
            throw DataError(std::string(key) + " is " + std::to_string(v), where,
                            "Give a positive size");
    };
    positive(c.hidden_size, "hidden_size");
    positive(c.intermediate_size, "intermediate_size");
    positive(c.num_attention_heads, "num_attention_heads");
    positive(c.num_key_value_heads, "num_key_value_heads");
    positive(c.head_dim, "head_dim");
    positive(c.vocab_size, "vocab_size");
    positive(c.draft_vocab_size, "draft_vocab_size");
    positive(c.target_hidden_size, "target_hidden_size");
    positive(c.max_position_embeddings, "max_position_embeddings");
    if (c.num_attention_heads % c.num_key_value_heads != 0)
        throw DataError("num_attention_heads is not a multiple of num_key_value_heads", where,
                        "Correct the config");
    if (c.head_dim % 2 != 0)
        throw DataError("head_dim is odd", where, "Rotary embedding needs an even width");
    if (c.draft_vocab_size > c.vocab_size)
        throw DataError("draft_vocab_size is larger than vocab_size", where,
                        "Make it at most vocab_size");
}
}  // namespace detail

inline ModelConfig parse_model_config(const Json& json, const std::string& where) {
    ModelConfig c;
    c.model_type = optional<std::string>(json, "model_type", c.model_type, where);
    const auto size = [&](const char* key) { return required<std::int64_t>(json, key, where); };
    const auto size_or = [&](const char* key, std::int64_t d) {
        return optional<std::int64_t>(json, key, d, where);
    };
    c.hidden_size = size("hidden_size");
    c.intermediate_size = size("intermediate_size");
    c.num_hidden_layers = size_or("num_hidden_layers", 1);
    c.num_attention_heads = size("num_attention_heads");
    c.num_key_value_heads = size_or("num_key_value_heads", c.num_attention_heads);
    const auto quotient = c.num_attention_heads > 0 ? c.hidden_size / c.num_attention_heads : 0;
    c.head_dim = size_or("head_dim", c.model_type == "qwen3" ? 128 : quotient);
    c.vocab_size = size("vocab_size");
    c.draft_vocab_size = size_or("draft_vocab_size", c.vocab_size);
    c.target_hidden_size = size_or("target_hidden_size", c.hidden_size);
    c.max_position_embeddings = size_or("max_position_embeddings", c.max_position_embeddings);
    c.rms_norm_eps = optional<double>(json, "rms_norm_eps", c.rms_norm_eps, where);
    c.rope_theta = detail::parse_rope_theta(json, c.rope_theta, where);
    c.rope_scaling = detail::parse_rope_scaling(json, where);
    c.initializer_range = optional<double>(json, "initializer_range", c.initializer_range, where);
    c.tie_word_embeddings = optional<bool>(json, "tie_word_embeddings", false, where);
    c.fc_norm = optional<bool>(json, "fc_norm", false, where);
    c.norm_output = optional<bool>(json, "norm_output", true, where);
    c.attention_bias = optional<bool>(json, "attention_bias", false, where);
    c.mlp_bias = optional<bool>(json, "mlp_bias", false, where);
    c.sliding_window = detail::parse_sliding_window(json, c, where);
    c.source = json;
    const auto act = optional<std::string>(json, "hidden_act", "silu", where);
    if (act != "silu")
        throw DataError("hidden_act '" + act + "' is not supported", where, "Use silu");
    detail::check_model_config(c, where);
    return c;
}

}  // namespace eyas
