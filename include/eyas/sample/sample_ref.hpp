#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eyas/sample/feature_spec.hpp"

namespace eyas {

/// A pointer to one sample's features; metadata only, never a tensor. This is all that crosses from
/// the producer pool to the trainer pool. JSON schema: SpecForge's SampleRef
/// (runtime/contracts.py); the order of keys is kept, so what is read and written again is
/// the same text.
struct SampleRef {
    static constexpr std::int64_t supported_schema_version = 1;

    std::string sample_id;  // unique in a store: "{run_id}:{index:08d}"
    std::string run_id;
    std::optional<std::string> source_task_id = {};
    std::string feature_store_uri = {};  // "file:///dir/x.ckpt", "disagg://store/id", ...
    std::vector<std::pair<std::string, std::string>> feature_keys = {};  // feature -> key in store
    std::vector<FeatureSpec> feature_specs = {};  // may be empty: the store then knows the shapes
    std::string strategy = "eagle3";
    std::int64_t schema_version = supported_schema_version;
    std::string target_model_version = "unknown";
    std::optional<std::string> draft_weight_version = {};
    std::string tokenizer_version = "unknown";
    std::int64_t num_tokens = 0;
    std::int64_t estimated_bytes = 0;
    OrderedJson metadata = OrderedJson::object();  // bounded: check_metadata

    /// metadata["generation"]; 0 where absent (features that nobody replaces, such as files).
    std::int64_t generation() const {
        return metadata.contains("generation")
                   ? detail::json_integer(metadata.at("generation"),
                                          sample_id + ": metadata.generation", 0)
                   : 0;
    }

    const FeatureSpec* find_spec(std::string_view feature) const {
        for (const auto& s : feature_specs)
            if (s.name == feature) return &s;
        return nullptr;
    }

    /// Throws DataError when the ref does not describe that feature.
    const FeatureSpec& spec(std::string_view feature) const {
        if (const auto* s = find_spec(feature)) return *s;
        throw DataError("no spec of feature '" + std::string(feature) + "'", "sample " + sample_id,
                        "Ingest the sample again");
    }

    /// The feature's own name in its file or store: its key after the sample's id
    /// ("golden:00000000/input_ids" -> "input_ids"), else the key's last part; the name itself
    /// where no key is given.
    std::string_view stored_name(std::string_view feature) const {
        for (const auto& [name, text] : feature_keys) {
            if (name != feature) continue;
            const std::string_view key = text;
            const bool own = key.size() > sample_id.size() && key.starts_with(sample_id) &&
                             key[sample_id.size()] == '/';
            return key.substr(own ? sample_id.size() + 1 : key.rfind('/') + 1);
        }
        return feature;
    }

    friend bool operator==(const SampleRef&, const SampleRef&) = default;
};
static_assert(MetadataOnly<SampleRef>);  // no member can hold a tensor

inline OrderedJson ref_to_json(const SampleRef& r) {
    OrderedJson j;
    j["sample_id"] = r.sample_id;
    j["run_id"] = r.run_id;
    j["source_task_id"] = detail::null_or(r.source_task_id);
    j["feature_store_uri"] = r.feature_store_uri;
    j["feature_keys"] = OrderedJson::object();
    for (const auto& [name, key] : r.feature_keys) j["feature_keys"][name] = key;
    j["feature_specs"] = OrderedJson::object();
    for (const auto& s : r.feature_specs) j["feature_specs"][s.name] = spec_to_json(s);
    j["strategy"] = r.strategy;
    j["schema_version"] = r.schema_version;
    j["target_model_version"] = r.target_model_version;
    j["draft_weight_version"] = detail::null_or(r.draft_weight_version);
    j["tokenizer_version"] = r.tokenizer_version;
    j["num_tokens"] = r.num_tokens;
    j["estimated_bytes"] = r.estimated_bytes;
    j["metadata"] = r.metadata;
    return j;
}

namespace detail {

inline void read_features(SampleRef& r, const OrderedJson& j, const std::string& where) {
    const auto keys = required<OrderedJson>(j, "feature_keys", where);
    const auto specs = required<OrderedJson>(j, "feature_specs", where);
    if (!keys.is_object() || !specs.is_object())
        throw DataError("feature_keys and feature_specs are objects", where,
                        "Write the manifest again");
    for (const auto& [name, unused] : keys.items())
        r.feature_keys.emplace_back(
            name, required<std::string>(keys, name.c_str(), where + ".feature_keys"));
    for (const auto& [name, spec] : specs.items()) {
        const auto field = where + ".feature_specs." + name;
        r.feature_specs.push_back(spec_from_json(spec, field));
        if (r.feature_specs.back().name != name)
            throw DataError("is named '" + r.feature_specs.back().name + "' inside", field,
                            "Write the manifest again");
    }
}

}  // namespace detail

/// Throws DataError for another schema version, a missing or unknown key, a wrong type, or metadata
/// that carries a payload. `where` names the file and the ref in it.
inline SampleRef ref_from_json(const OrderedJson& j, const std::string& where) {
    static constexpr std::string_view keys[] = {"sample_id",
                                                "run_id",
                                                "source_task_id",
                                                "feature_store_uri",
                                                "feature_keys",
                                                "feature_specs",
                                                "strategy",
                                                "schema_version",
                                                "num_tokens",
                                                "estimated_bytes",
                                                "target_model_version",
                                                "draft_weight_version",
                                                "metadata",
                                                "tokenizer_version"};
    detail::check_keys(j, keys, where);
    SampleRef r;
    r.schema_version =
        detail::integer_member(j, "schema_version", SampleRef::supported_schema_version, where);
    if (r.schema_version != SampleRef::supported_schema_version)
        throw DataError("schema version " + std::to_string(r.schema_version) +
                            ", this library reads version " +
                            std::to_string(SampleRef::supported_schema_version),
                        where + ".schema_version", "Ingest the features again");
    r.sample_id = required<std::string>(j, "sample_id", where);
    if (r.sample_id.empty()) throw DataError("empty sample_id", where, "Give it an id");
    r.run_id = required<std::string>(j, "run_id", where);
    r.source_task_id = detail::string_or_null(j, "source_task_id", where);
    r.feature_store_uri = required<std::string>(j, "feature_store_uri", where);
    detail::read_features(r, j, where);
    r.strategy = required<std::string>(j, "strategy", where);
    r.target_model_version = optional<std::string>(j, "target_model_version", "unknown", where);
    r.draft_weight_version = detail::string_or_null(j, "draft_weight_version", where);
    r.tokenizer_version = optional<std::string>(j, "tokenizer_version", "unknown", where);
    r.num_tokens = detail::integer_member(j, "num_tokens", 0, where);
    r.estimated_bytes = detail::integer_member(j, "estimated_bytes", 0, where);
    r.metadata = detail::metadata_member(j, "metadata", where);
    if (r.metadata.contains("generation"))
        detail::json_integer(r.metadata.at("generation"), where + ".metadata.generation", 0);
    return r;
}

}  // namespace eyas
