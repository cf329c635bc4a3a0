#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/checksum.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/format/hf_weights.hpp"

namespace eyas {

/// One decoder layer of a Llama in fp32; matrices that read the same input are one matrix, so that
/// a layer is four large products.
struct TargetLayer {
    Tensor input_norm;  // [D]
    Tensor qkv;         // [(H + 2G) E, D]: rows of q, then k, then v
    Tensor output;      // [D, H E]
    Tensor post_norm;   // [D]
    Tensor gate_up;     // [2F, D]: rows of gate, then up
    Tensor down;        // [D, F]
};

/// A Llama's weights, widened to fp32 once. Read-only after construction.
struct TargetWeights {
    Tensor embedding;   // [V, D]
    Tensor head;        // [V, D]; empty where the config ties it to the embedding
    Tensor final_norm;  // [D]
    std::vector<TargetLayer> layers;
};

namespace detail {

/// Copies weight `name`, which must have `shape`, into fp32 rows [row, row + shape[0]) of `to`.
/// Throws DataError when it is absent, has another shape, or is neither float32 nor bfloat16.
inline void widen_rows(const HfWeights& weights, const std::string& name, const Shape& shape,
                       Tensor& to, std::int64_t row) {
    const auto from = weights.at(name);
    if (!(from.shape == shape))
        throw DataError("shape " + from.shape.text() + ", but the config says " + shape.text(),
                        name, "Use the config.json that belongs to these weights");
    if (from.dtype != DType::F32 && from.dtype != DType::BF16)
        throw DataError("dtype " + std::string(name_of(from.dtype)), name,
                        "Convert the model to bfloat16 or float32");
    const auto row_elements = shape.rank() == 1 ? 1 : shape[1];
    MutableTensorView part{
        to.mutable_view().data + static_cast<std::size_t>(row * row_elements) * size_of(DType::F32),
        DType::F32, shape};
    convert_into(from, part);
}

/// Stacks matrices of `width` columns on top of one another.
inline Tensor stacked(const HfWeights& weights, std::int64_t width,
                      const std::vector<std::pair<std::string, std::int64_t>>& parts) {
    std::int64_t rows = 0;
    for (const auto& [name, n] : parts) rows += n;
    Tensor t(DType::F32, {rows, width});
    rows = 0;
    for (const auto& [name, n] : parts) {
        widen_rows(weights, name, {n, width}, t, rows);
        rows += n;
    }
    return t;
}

inline Tensor vector_of(const HfWeights& weights, const std::string& name, std::int64_t width) {
    Tensor t(DType::F32, {width});
    widen_rows(weights, name, {width}, t, 0);
    return t;
}

/// Refuses models whose forward is not the one of TargetModel, instead of computing other numbers.
inline void check_is_plain_llama(const HfWeights& weights) {
    const auto& c = weights.config();
    const std::string where = "target model's config.json";
    const auto kind = optional<std::string>(c.source, "model_type", "llama", where);
    if (kind != "llama")
        throw DataError("model_type '" + kind + "' is not supported", where, "Use a Llama model");
    for (const char* key : {"attention_bias", "mlp_bias"})
        if (optional<bool>(c.source, key, false, where))
            throw DataError(std::string(key) + " is true", where, "Use a model without biases");
    const auto& rope = c.rope_scaling.type;
    if (rope != "default" && rope != "linear" && rope != "llama3")
        throw DataError("rope type '" + rope + "' is not supported for a target", where,
                        "Use a model with default, linear or llama3 rope");
}

}  // namespace detail

/// Reads and widens a Llama of any size. Throws DataError for a model of another architecture and
/// for weights that are missing or do not fit the config.
inline TargetWeights load_target_weights(const HfWeights& from) {
    detail::check_is_plain_llama(from);
    const auto& c = from.config();
    const auto width = c.hidden_size, ff = c.intermediate_size;
    const auto q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
    TargetWeights w;
    w.embedding = detail::stacked(from, width, {{"model.embed_tokens.weight", c.vocab_size}});
    if (!c.tie_word_embeddings)
        w.head = detail::stacked(from, width, {{"lm_head.weight", c.vocab_size}});
    w.final_norm = detail::vector_of(from, "model.norm.weight", width);
    for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
        const auto at = [&](const char* part) {
            return "model.layers." + std::to_string(i) + "." + part + ".weight";
        };
        TargetLayer l;
        l.input_norm = detail::vector_of(from, at("input_layernorm"), width);
        l.qkv = detail::stacked(from, width,
                                {{at("self_attn.q_proj"), q},
                                 {at("self_attn.k_proj"), kv},
                                 {at("self_attn.v_proj"), kv}});
        l.output = detail::stacked(from, q, {{at("self_attn.o_proj"), width}});
        l.post_norm = detail::vector_of(from, at("post_attention_layernorm"), width);
        l.gate_up =
            detail::stacked(from, width, {{at("mlp.gate_proj"), ff}, {at("mlp.up_proj"), ff}});
        l.down = detail::stacked(from, ff, {{at("mlp.down_proj"), width}});
        w.layers.push_back(std::move(l));
    }
    return w;
}

/// XXH3-64 over the config and every weight, 16 hexadecimal digits.
inline std::string fingerprint(const TargetWeights& w, const ModelConfig& config) {
    std::string all = config.source.dump();
    const auto add = [&](const Tensor& t) {
        if (!t.empty()) all += hex64(xxh3(t.view().bytes()));
    };
    add(w.embedding), add(w.head), add(w.final_norm);
    for (const auto& l : w.layers)
        add(l.input_norm), add(l.qkv), add(l.output), add(l.post_norm), add(l.gate_up), add(l.down);
    return hex64(xxh3(std::as_bytes(std::span(all))));
}

}  // namespace eyas
