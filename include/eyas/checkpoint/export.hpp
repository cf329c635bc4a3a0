#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eyas/checkpoint/config_json.hpp"
#include "eyas/checkpoint/directory.hpp"
#include "eyas/checkpoint/draft_convention.hpp"
#include "eyas/core/checksum.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/format/safetensors.hpp"

namespace eyas {

/// Which reader a serving directory is for. Sglang: the draft alone (the engine shares the target's
/// embedding). HuggingFace: also embed_tokens.weight, so that the directory is whole.
enum class ExportLayout { Sglang, HuggingFace };

struct ExportOptions {
    ExportLayout layout = ExportLayout::Sglang;
    /// [V, D], float32 or bfloat16: the target's embedding. Needed for HuggingFace only.
    std::optional<TensorView> embedding = std::nullopt;
};

namespace detail {
inline bool scales(const Json& rope) {
    if (!rope.is_object()) return false;
    const Json kind = rope.contains("rope_type") ? rope["rope_type"] : rope.value("type", Json());
    return kind.is_string() && kind != "default";
}

/// Older readers know rope_scaling and rope_theta, newer ones rope_parameters: a scaled rope goes
/// out as both.
inline void mirror_rope(Json& j) {
    const Json scaling = j.value("rope_scaling", Json()),
               parameters = j.value("rope_parameters", Json());
    if (parameters.is_object() && parameters.contains("rope_theta"))
        j["rope_theta"] = parameters["rope_theta"];
    if (scales(parameters) && !scales(scaling)) {
        j["rope_scaling"] = parameters;
        j["rope_scaling"].erase("rope_theta");
    } else if (scales(scaling) && (!parameters.is_object() || parameters.empty())) {
        j["rope_parameters"] = scaling;
        if (!scaling.contains("rope_theta")) j["rope_parameters"]["rope_theta"] = j["rope_theta"];
    }
}

inline constexpr const char* serving_architecture = "LlamaForCausalLMEagle3";

inline void serve_convention(Json& j, const CaptureConvention& c) {
    constexpr const char* key = "eagle_aux_hidden_state_layer_ids";
    j["architectures"] = {serving_architecture};
    auto& eagle = j["eagle_config"];
    if (!eagle.is_object()) eagle = Json::object();
    eagle[key] = c.layers;
    eagle["use_aux_hidden_state"] = true;
    j[key] = Json::array();
    for (const auto l : c.layers) j[key].push_back(l + 1);
}
}  // namespace detail

/// The config.json of a serving directory: the draft's own, with the keys that a Llama config of
/// transformers 4.57.6 always has (the layout that "transformers_version" names), bfloat16, and
/// both spellings of a scaled rope.
///
/// Where the config says how samples were captured, also what engines need to capture the same:
/// eagle_config (SGLang, SpecForge: the layer after which a state is taken), the same key at the
/// top level (vLLM: the layer before which), and with `map_hash` which vocabulary map the draft
/// has. Throws ContractError where the config asks for other layers.
inline Json serving_config(const ModelConfig& c, const std::string& map_hash = "") {
    Json j{{"architectures", {detail::serving_architecture}},
           {"model_type", "llama"},
           {"attention_bias", false},
           {"attention_dropout", 0.0},
           {"hidden_act", "silu"},
           {"mlp_bias", false},
           {"pretraining_tp", 1},
           {"rope_scaling", nullptr},
           {"use_cache", true},
           {"initializer_range", c.initializer_range},
           {"tie_word_embeddings", c.tie_word_embeddings},
           {"rope_theta", c.rope_theta},
           {"max_position_embeddings", c.max_position_embeddings},
           {"num_hidden_layers", c.num_hidden_layers},
           {"num_key_value_heads", c.num_key_value_heads},
           {"head_dim", c.head_dim},
           {"rms_norm_eps", c.rms_norm_eps},
           {"draft_vocab_size", c.draft_vocab_size}};
    const Json own = config_json(c);
    for (const auto& [key, value] : own.items())
        if (!value.is_null() || !j.contains(key)) j[key] = value;
    j.erase("torch_dtype");
    j["dtype"] = "bfloat16";
    j["transformers_version"] = "4.57.6";
    detail::mirror_rope(j);
    if (const auto convention = recorded_convention(c, "config.json")) {
        require_convention(*convention, c, "config.json");
        detail::serve_convention(j, *convention);
        if (!map_hash.empty()) j["eyas"]["vocab_map"] = map_hash;
    }
    return j;
}

namespace detail {
/// Throws DataError unless the tensor is there with the shape that the config asks for.
inline void require_shape(const std::map<std::string, TensorView>& all, const std::string& name,
                          const Shape& shape, const std::string& where) {
    const auto it = all.find(name);
    if (it == all.end())
        throw DataError("tensor " + name + " is missing", where,
                        "A serving engine would load a broken draft; export a whole checkpoint");
    if (!(it->second.shape == shape))
        throw DataError("tensor " + name + " is " + it->second.shape.text() +
                            ", the config asks for " + shape.text(),
                        where, "Use the config that the draft was trained with");
}

inline constexpr const char* export_mark = ".eyas-export";

/// What the mark of an export says: it was written here, with these weights and this config.
inline std::string mark_of(const std::filesystem::path& dir) {
    std::string text;
    for (const char* name : {"model.safetensors", "config.json"})
        text += hex64(xxh3(MappedFile(dir / name).bytes())) + "  " + name + "\n";
    return text;
}

/// Whether a directory holds an export as it was written; another's draft looks the same but for
/// the mark.
inline bool is_export(const std::filesystem::path& dir) {
    try {
        return read_text_file(dir / export_mark) == mark_of(dir);
    } catch (const Error&) {  // a file is missing
        return false;
    }
}

/// Absolute, without a trailing slash. ContractError if anything but an export of ours lies there.
inline std::filesystem::path checked_export_directory(const std::filesystem::path& out_dir) {
    auto target = std::filesystem::absolute(out_dir).lexically_normal();
    if (!target.has_filename()) target = target.parent_path();
    const auto refuse = [&](const std::string& what) {
        throw ContractError(what, out_dir.string(), "Name a new directory");
    };
    std::error_code e;
    if (!std::filesystem::exists(std::filesystem::symlink_status(target, e))) return target;
    if (!std::filesystem::is_directory(target, e)) refuse("something else than a directory");
    std::size_t files = 0;
    auto it = std::filesystem::directory_iterator(target, e);
    if (e) refuse("the directory cannot be listed: " + e.message());
    for (; it != std::filesystem::directory_iterator(); ++it, ++files) {
        const auto name = it->path().filename();
        if (name != "model.safetensors" && name != "config.json" && name != export_mark)
            refuse("the directory holds " + name.string() + ", which is no export");
    }
    if (files > 0 && !is_export(target))
        refuse("the directory holds a model that is no exported draft, or was changed since");
    return target;
}
}  // namespace detail

/// Writes `out_dir` (complete or not at all, over an older export of ours) with model.safetensors
/// (bfloat16 weights under the training names, t2d [V] bool, d2t [W] int64) and config.json, as
/// SGLang's EAGLE3 loader and transformers read them. `draft` is what draft_tensors() gives;
/// `where` names its origin in errors. Throws DataError for missing or misshapen tensors,
/// ContractError for a HuggingFace layout without an embedding.
inline void export_draft(const std::filesystem::path& out_dir, std::span<const NamedTensor> draft,
                         const ModelConfig& config, const ExportOptions& options,
                         const std::string& where) {
    std::map<std::string, TensorView> all;  // sorted by name, as the reference writes them
    for (const auto& t : draft)
        if (t.name.find("embed") == std::string::npos) all[t.name] = t.tensor;
    const auto d = config.hidden_size, v = config.vocab_size, w = config.draft_vocab_size;
    detail::require_shape(all, "fc.weight", Shape{d, 3 * config.target_hidden_size}, where);
    detail::require_shape(all, "norm.weight", Shape{d}, where);
    detail::require_shape(all, "lm_head.weight", Shape{w, d}, where);
    detail::require_shape(all, "t2d", Shape{v}, where);
    detail::require_shape(all, "d2t", Shape{w}, where);
    if (options.layout == ExportLayout::HuggingFace) {
        if (!options.embedding)
            throw ContractError("the Hugging Face layout needs embed_tokens.weight", where,
                                "Pass the target model, whose embedding it is");
        all["embed_tokens.weight"] = *options.embedding;
        detail::require_shape(all, "embed_tokens.weight", Shape{v, d}, "target model");
    }
    std::vector<Tensor> rounded;
    std::vector<NamedTensor> out;
    for (const auto& [name, tensor] : all) {
        if (name == "t2d" || name == "d2t" || tensor.dtype == DType::BF16) {
            out.push_back({name, tensor});
            continue;
        }
        rounded.emplace_back(DType::BF16, tensor.shape);
        convert_into(tensor, rounded.back().mutable_view());
        out.push_back({name, rounded.back().view()});
    }
    const auto target = detail::checked_export_directory(out_dir);
    AtomicDirectory dir(target.parent_path(), target.filename().string());
    write_safetensors(dir.path() / "model.safetensors", out, {{"format", "pt"}});
    const auto map_hash = hex64(xxh3(all.at("d2t").bytes()));
    write_text_file(dir.path() / "config.json", serving_config(config, map_hash).dump(2) + "\n");
    write_text_file(dir.path() / detail::export_mark, detail::mark_of(dir.path()));
    dir.commit();
}

/// The same from a checkpoint directory of ours (model.safetensors beside config.json).
inline void export_checkpoint(const std::filesystem::path& out_dir,
                              const std::filesystem::path& checkpoint,
                              const ExportOptions& options = {}) {
    const SafetensorsFile model(checkpoint / "model.safetensors");
    export_draft(out_dir, model.tensors(), read_model_config(checkpoint / "config.json"), options,
                 checkpoint.string());
}

}  // namespace eyas
