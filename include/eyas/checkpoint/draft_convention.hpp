#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eyas/checkpoint/config_json.hpp"
#include "eyas/core/checksum.hpp"
#include "eyas/sample/capture_convention.hpp"
#include "eyas/sample/vocab_map.hpp"

namespace eyas {

/// The target's layers whose results a draft's config asks for, counted as capture does; nothing
/// where it does not say. In eagle_config (SGLang, SpecForge) a number is the layer after which the
/// residual stream is taken; at the top level (vLLM) the layer before which it is: one more.
/// Throws DataError for lists that are none.
inline std::optional<std::vector<std::int64_t>> configured_layers(const Json& config,
                                                                  const std::string& where) {
    using Layers = std::vector<std::int64_t>;
    constexpr const char* key = "eagle_aux_hidden_state_layer_ids";
    const auto of = [&](const Json& object) -> std::optional<Layers> {
        if (!object.is_object() || object.value(key, Json()).is_null()) return std::nullopt;
        auto layers = required<Layers>(object, key, where);
        for (const auto l : layers)
            if (l < 0 || l > (std::int64_t{1} << 31))
                throw DataError(std::string(key) + " names layer " + std::to_string(l), where,
                                "Correct the config");
        return layers;
    };
    if (!config.is_object()) return std::nullopt;
    if (auto layers = of(config.value("eagle_config", Json()))) return layers;
    auto layers = of(config);
    if (layers)
        for (auto& l : *layers) --l;
    return layers;
}

/// How the samples were captured that a draft was trained on, as its config.json says
/// ("eyas.capture"); nothing where it does not. Throws DataError.
inline std::optional<CaptureConvention> recorded_convention(const ModelConfig& draft,
                                                            const std::string& where) {
    const auto& config = draft.source;
    const auto own = config.is_object() ? config.value("eyas", Json()) : Json();
    if (!own.is_object() || !own.contains(convention_key)) return std::nullopt;
    return convention_from_json(OrderedJson(own.at(convention_key)), where + ": eyas.capture");
}

/// From now on the draft's config.json says it, or where there is none, nothing.
inline void record_convention(ModelConfig& draft, const std::optional<CaptureConvention>& c) {
    if (!c && !draft.source.contains("eyas")) return;
    draft.source = config_json(draft);
    draft.source.erase("eyas");
    if (c) draft.source["eyas"][convention_key] = Json(convention_to_json(*c));
}

/// What of a convention a resumed run must find again. Runs of versions that knew fp32 only say
/// nothing of it.
inline Json convention_identity(const CaptureConvention& c) {
    Json j = convention_to_json(c);
    j.erase("target_id");
    if (c.precision == CaptureConvention().precision) j.erase("precision");
    return j;
}

/// Throws ContractError, naming the first difference, unless samples captured as `c` says are what
/// a draft of this config reads: its sizes, the layers that it asks for and, where it was trained
/// already, the convention of the samples that it was trained on. `where` names the config.
inline void require_convention(const CaptureConvention& c, const ModelConfig& draft,
                               const std::string& where) {
    const auto refuse = [&](const std::string& what, const std::string& remedy) {
        throw ContractError("the samples were captured otherwise: " + what, where, remedy);
    };
    const auto same = [&](const char* what, std::int64_t here, std::int64_t there) {
        if (here != there)
            refuse(std::string(what) + ": " + std::to_string(there) + " in the config, " +
                       std::to_string(here) + " of the samples",
                   "Use the config of a draft for the samples' target");
    };
    same("vocab_size", c.vocab_size, draft.vocab_size);
    same("target_hidden_size", c.hidden_size, draft.target_hidden_size);
    if (const auto own = recorded_convention(draft, where))
        if (const auto d = difference(*own, c))
            refuse(
                *d + " (of the draft, of the samples)",
                "Use samples of the capture that the draft was trained on, or start a new draft");
    if (const auto layers = configured_layers(draft.source, where); layers && *layers != c.layers)
        refuse("layers: " + Json(*layers).dump() + " in the config, " + Json(c.layers).dump() +
                   " of the samples",
               "Capture these layers (eyas capture --layers), or correct "
               "eagle_aux_hidden_state_layer_ids");
}

/// What tells one draft vocabulary from another: XXH3-64 of d2t [W] int64 in bytes.
inline std::string vocab_map_hash(const VocabMap& map) {
    return hex64(xxh3(std::as_bytes(std::span(map.d2t))));
}

}  // namespace eyas
