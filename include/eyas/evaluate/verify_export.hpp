#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/capture/require_target.hpp"
#include "eyas/checkpoint/draft_config.hpp"
#include "eyas/checkpoint/draft_convention.hpp"
#include "eyas/checkpoint/export.hpp"
#include "eyas/checkpoint/on_host.hpp"
#include "eyas/model/eagle3_options.hpp"
#include "eyas/model/frozen_target.hpp"

namespace eyas {

/// One thing that was compared.
struct ExportCheck {
    std::string name;
    bool good = false;
    std::string text;  // what was compared, or the difference
};

/// What an export is compared with. All are borrowed.
struct ExportVerification {
    std::filesystem::path exported;    // the directory
    std::filesystem::path checkpoint;  // the directory that it was made from
    const HfWeights& target;
    Eagle3Options options = {};                  // of the models whose logits are compared
    ExportLayout layout = ExportLayout::Sglang;  // HuggingFace: it must hold the embedding
};

namespace detail {

/// A draft's directory read as its user would: config, weights, map.
struct DraftDirectory {
    explicit DraftDirectory(const std::filesystem::path& dir)
        : path(dir),
          config(read_draft_config(dir / "config.json")),
          weights(dir),
          map(weights.vocab_map(config.vocab_size, config.draft_vocab_size)) {}

    std::filesystem::path path;
    ModelConfig config;
    DraftWeights weights;
    VocabMap map;
};

/// Which value of a draft differs between a checkpoint and what came out of it.
[[noreturn]] inline void differs(const std::string& what, const std::filesystem::path& where) {
    throw DataError(what, where.string(), "Export the checkpoint again");
}

inline std::string same_map(const DraftDirectory& live, const DraftDirectory& out) {
    if (live.map.draft_vocab_size() != out.map.draft_vocab_size() ||
        live.map.vocab_size() != out.map.vocab_size())
        differs("the vocabulary map has other sizes", out.path);
    for (std::int64_t d = 0; d < live.map.draft_vocab_size(); ++d)
        if (live.map.target_id(d) != out.map.target_id(d))
            differs("d2t: draft id " + std::to_string(d) + " is target id " +
                        std::to_string(out.map.target_id(d)) + ", in the checkpoint " +
                        std::to_string(live.map.target_id(d)),
                    out.path);
    if (live.map.t2d != out.map.t2d) differs("t2d is another one", out.path);
    return "d2t and t2d equal, " + std::to_string(live.map.draft_vocab_size()) + " of " +
           std::to_string(live.map.vocab_size()) + " tokens, " + vocab_map_hash(out.map);
}

/// Each exported weight is the checkpoint's, rounded to bfloat16.
inline std::string same_weights(const DraftDirectory& live, const DraftDirectory& out) {
    std::int64_t elements = 0;
    for (const auto& [name, own] : live.weights.tensors()) {
        const auto theirs = out.weights.at(name);
        if (theirs.dtype != DType::BF16 || !(theirs.shape == own.shape))
            differs(name + " is " + std::string(name_of(theirs.dtype)) + " " + theirs.shape.text() +
                        ", not bfloat16 " + own.shape.text(),
                    out.path);
        Tensor rounded(DType::BF16, own.shape);
        convert_into(own, rounded.mutable_view());
        const auto a = rounded.as<BFloat16>();
        const auto b = theirs.as<BFloat16>();
        for (std::size_t i = 0; i < a.size(); ++i)
            if (!(a[i] == b[i]))
                differs(name + ": element " + std::to_string(i) + " is " +
                            std::to_string(static_cast<float>(b[i])) + ", the checkpoint's is " +
                            std::to_string(static_cast<float>(a[i])),
                        out.path);
        elements += own.elements();
    }
    for (const auto& [name, unused] : out.weights.tensors())
        if (!live.weights.tensors().contains(name))
            differs("the checkpoint has no tensor '" + name + "'", out.path);
    return std::to_string(live.weights.tensors().size()) + " tensors, " + std::to_string(elements) +
           " elements, each the checkpoint's rounded to bfloat16";
}

inline std::string same_embedding(const DraftDirectory& out, const HfWeights& target,
                                  ExportLayout layout) {
    require_target_embedding(out.weights, FrozenTarget::of(target).embed_tokens);
    if (layout == ExportLayout::HuggingFace && !out.weights.embedding())
        differs("the Hugging Face layout's embed_tokens.weight is missing", out.path);
    return out.weights.embedding() ? "is the target's" : "none: engines take the target's";
}

/// config_fields() with a rope as either spelling says it.
inline Json comparable_fields(const ModelConfig& c) {
    auto j = config_fields(c);
    auto& rope = j["rope_scaling"];
    if (rope.is_object())
        for (const char* key : {"rope_theta", "type", "rope_type"}) rope.erase(key);
    if (rope.is_null() || rope.empty()) rope = Json::object();
    j["rope_type"] = c.rope_scaling.type;
    return j;
}

/// The config computes the same draft, and tells engines to capture as its samples were captured.
inline std::string same_config(const DraftDirectory& live, const DraftDirectory& out) {
    const auto file = out.path / "config.json";
    if (const auto d =
            first_difference(comparable_fields(live.config), comparable_fields(out.config)))
        differs(*d + " (saved: of the checkpoint)", file);
    const auto& j = out.config.source;
    if (j.value("architectures", Json()) != Json{serving_architecture})
        differs("architectures is " + j.value("architectures", Json()).dump(), file);
    const auto c = recorded_convention(live.config, live.path.string());
    if (!c) return "the same draft; the checkpoint does not say how its samples were captured";
    const auto told = recorded_convention(out.config, file.string());
    if (!told) differs("does not say how its samples were captured", file);
    if (const auto d = difference(*c, *told))
        differs("eyas.capture: " + *d + " (of the checkpoint, exported)", file);
    auto wanted = Json::object();
    serve_convention(wanted, *c);
    wanted["eyas"]["vocab_map"] = vocab_map_hash(out.map);
    const auto own = j.at("eyas");
    Json found{
        {"architectures", j.at("architectures")},
        {"eagle_config", j.value("eagle_config", Json())},
        {"eagle_aux_hidden_state_layer_ids", j.value("eagle_aux_hidden_state_layer_ids", Json())},
        {"eyas", {{"vocab_map", own.value("vocab_map", Json())}}}};
    const auto eagle = found["eagle_config"];
    if (eagle.is_object())  // a user may have more in it
        for (const auto& [key, unused] : eagle.items())
            if (!wanted["eagle_config"].contains(key)) found["eagle_config"].erase(key);
    if (const auto d = first_difference(wanted, found))
        differs(*d + " (saved: as it must be)", file);
    return "the same draft, layers " + Json(c->layers).dump() + ", vocabulary map and target " +
           c->target + " (" + c->target_id + ")";
}

inline std::string same_target(const DraftDirectory& live, const HfWeights& target) {
    const auto c = recorded_convention(live.config, live.path.string());
    if (!c) return "the checkpoint does not say which it was trained for";
    return require_target(*c, target) ? c->target + " (" + c->target_id + ")"
                                      : "its directory holds no layers; sizes were compared";
}

inline std::string same_files(const std::filesystem::path& out) {
    if (!std::filesystem::exists(out / export_mark)) differs("has no mark of an export", out);
    if (!is_export(out)) differs("its files were changed since they were exported", out);
    return "as they were written";
}

}  // namespace detail

/// A batch and its logits [K, B*T, W].
using SeesLogits = std::function<void(const Batch&, const TensorView&)>;

/// Reads an export as its user would, and compares it with the checkpoint that it was made from:
/// files, map, every weight, embedding, config, target. No model is built. Differences, also what
/// reading throws of a bad export, are told in the checks.
inline std::vector<ExportCheck> verify_export_files(const ExportVerification& v) {
    std::vector<ExportCheck> checks;
    const auto check = [&](const char* name, const std::function<std::string()>& f) {
        try {
            checks.push_back({name, true, f()});
        } catch (const Error& e) {
            checks.push_back({name, false, e.what()});
        }
    };
    const detail::DraftDirectory live(v.checkpoint);
    std::optional<detail::DraftDirectory> out;
    check("files", [&] { return detail::same_files(v.exported); });
    check("import", [&] {
        out.emplace(v.exported);
        return out->weights.path().string();
    });
    check("target", [&] { return detail::same_target(live, v.target); });
    if (!out) return checks;
    check("vocabulary map", [&] { return detail::same_map(live, *out); });
    check("weights", [&] { return detail::same_weights(live, *out); });
    check("embedding", [&] { return detail::same_embedding(*out, v.target, v.layout); });
    check("config", [&] { return detail::same_config(live, *out); });
    return checks;
}

namespace detail {
/// Rounds the weights to bfloat16, as an export does.
template <class M>
void round_weights(M& model) {
    const auto host = weights_on_host(model);
    for (const auto& p : host.content().parameters) {
        Tensor rounded(DType::BF16, p.value.shape);
        convert_into(p.value, rounded.mutable_view());
        convert_into(rounded.view(), p.value);
    }
    host.put_back();
}

inline void require_same_bits(const Tensor& live, const Tensor& out, const std::string& where) {
    if (!(live.shape() == out.shape()))
        throw DataError("the export's logits have shape " + out.shape().text() +
                            ", the checkpoint's " + live.shape().text(),
                        where, "Export the checkpoint again");
    const auto a = live.as<float>(), b = out.as<float>();
    const auto width = static_cast<std::size_t>(live.shape()[2]);
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]))
            throw DataError("row " + std::to_string(i / width) + ", draft id " +
                                std::to_string(i % width) + ": the export's logit is " +
                                std::to_string(b[i]) + ", the checkpoint's " + std::to_string(a[i]),
                            where, "Export the checkpoint again");
        if (!std::isfinite(a[i]))
            throw DataError("row " + std::to_string(i / width) + ": the logits are not finite",
                            where, "Use another checkpoint");
    }
}

/// Two drafts M: the checkpoint's with its weights rounded to bfloat16, and a fresh one read from
/// the export.
template <class M>
struct ComparedDrafts {
    explicit ComparedDrafts(const ExportVerification& v)
        : a(v.checkpoint),
          b(v.exported),
          live(a.config, v.options, a.map, FrozenTarget::of(v.target), 0),
          out(b.config, v.options, b.map, FrozenTarget::of(v.target), 1) {
        load_weights_into(live, v.checkpoint);
        load_weights_into(out, v.exported);
        round_weights(live);
    }

    DraftDirectory a, b;
    M live, out;
};
}  // namespace detail

/// The logits of both drafts must be equal in every bit on the batches that `next` gives (nullptr:
/// no more). `sees` is told of each. Differences, also what reading throws of a bad export, are
/// told in the check. Throws what `next` and `sees` do, and ContractError where there was no batch.
template <class M>
ExportCheck verify_export_logits(const ExportVerification& v,
                                 const std::function<const Batch*()>& next,
                                 const SeesLogits& sees = {}) {
    std::optional<detail::ComparedDrafts<M>> drafts;
    std::int64_t rows = 0, batches = 0;
    try {
        drafts.emplace(v);
    } catch (const Error& e) {
        return {"logits", false, e.what()};
    }
    for (; const Batch* batch = next(); ++batches) {
        Tensor logits;
        try {
            const auto live = drafts->live.logits(*batch);
            logits = drafts->out.logits(*batch);
            detail::require_same_bits(live, logits, "batch " + std::to_string(batches));
        } catch (const Error& e) {
            return {"logits", false, e.what()};
        }
        rows += logits.shape()[0] * logits.shape()[1];
        if (sees) sees(*batch, logits.view());
    }
    if (batches == 0)
        throw ContractError("there was no sample", "logits", "Name samples that exist");
    return {"logits", true,
            std::to_string(rows) + " rows of " + std::to_string(drafts->a.config.draft_vocab_size) +
                " logits equal in every bit"};
}

}  // namespace eyas
