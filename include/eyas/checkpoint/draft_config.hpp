#pragma once
#include <filesystem>
#include <string>

#include "eyas/core/json.hpp"
#include "eyas/format/hf_config.hpp"

namespace eyas {

namespace detail {
/// The flat form of a config that keeps the decoder layer's fields in transformer_layer_config, as
/// vLLM's speculators write it.
inline Json flat_draft_config(Json config, const std::string& where) {
    const auto layer = config.value("transformer_layer_config", Json());
    if (layer.is_null()) return config;
    if (!layer.is_object())
        throw DataError("transformer_layer_config is not an object", where, "Correct the config");
    config.erase("transformer_layer_config");
    Json flat = layer;
    flat.update(config);  // the outer ones win
    return flat;
}
}  // namespace detail

/// A draft's config.json: of eyas, SpecForge, SGLang, the EAGLE repository or vLLM's speculators.
/// Throws DataError for a config that is none, and for a draft whose forward is another one: with
/// biases, with the residual taken after the norm of its input, or with a norm over all captured
/// states at once.
inline ModelConfig read_draft_config(const std::filesystem::path& file) {
    const auto where = file.string();
    auto json = read_json_file(file);
    if (!json.is_object()) throw DataError("is not an object", where, "Name a draft's config.json");
    json = detail::flat_draft_config(std::move(json), where);
    for (const char* key : {"attention_bias", "mlp_bias", "norm_before_residual", "norm_before_fc"})
        if (optional<bool>(json, key, false, where))
            throw DataError(std::string(key) + " is true", where,
                            "This kind of draft is not computed here; use one without");
    return parse_model_config(json, where);
}

}  // namespace eyas
