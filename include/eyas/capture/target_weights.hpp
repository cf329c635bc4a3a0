#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eyas/capture/target_family.hpp"
#include "eyas/core/checksum.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/format/hf_weights.hpp"

namespace eyas {

/// One decoder layer in fp32; matrices that read the same input are one matrix, so that a layer is
/// four large products. Biases and norms of heads are empty where the model has none.
struct TargetLayer {
    Tensor input_norm;      // [D]
    Tensor qkv;             // [(H + 2G) E, D]: rows of q, then k, then v
    Tensor qkv_bias;        // [(H + 2G) E]
    Tensor q_norm, k_norm;  // [E]: of each head of q and of k, before the rotation
    Tensor output;          // [D, H E]
    Tensor output_bias;     // [D]
    Tensor post_norm;       // [D]
    Tensor gate_up;         // [2F, D]: rows of gate, then up
    Tensor gate_up_bias;    // [2F]
    Tensor down;            // [D, F]
    Tensor down_bias;       // [D]
};

/// A target's weights, widened to fp32 once. Read-only after construction.
struct TargetWeights {
    Tensor embedding;   // [V, D]
    Tensor head;        // [V, D]; empty where the config ties it to the embedding
    Tensor final_norm;  // [D]
    std::vector<TargetLayer> layers;
};

namespace detail {

/// Widens weights of a model, and knows afterwards which ones nobody asked for.
class WeightReader {
public:
    /// Names without ".weight" or ".bias", and rows or, for vectors, elements of each.
    using Parts = std::vector<std::pair<std::string, std::int64_t>>;

    /// `from` must outlive it.
    explicit WeightReader(const HfWeights& from) : from_(from) {}

    /// Matrices of `width` columns on top of one another. Throws DataError where one is absent, has
    /// another shape than the config says, or is not stored as float32, float16 or bfloat16.
    Tensor matrix(const Parts& parts, std::int64_t width) {
        return stacked(parts, ".weight", [&](std::int64_t n) { return Shape{n, width}; });
    }
    Tensor norm(const std::string& name, std::int64_t width) {
        return stacked({{name, width}}, ".weight", [](std::int64_t n) { return Shape{n}; });
    }
    /// The biases of what matrix() reads, one after the other.
    Tensor bias(const Parts& parts) {
        return stacked(parts, ".bias", [](std::int64_t n) { return Shape{n}; });
    }

    /// A head that the config ties, though the files have one: it must be the embedding. Otherwise
    /// one of the two is not the model's. Throws DataError.
    void expect_same(const std::string& name, const std::string& other) {
        if (!from_.contains(name)) return;
        const auto a = from_.at(name), b = from_.at(other);
        read_.insert(name);
        if (a.dtype != b.dtype || !(a.shape == b.shape) ||
            !std::ranges::equal(a.bytes(), b.bytes()))
            throw DataError("is not " + other + ", though tie_word_embeddings is true", name,
                            "Correct the config, or remove the tensor");
    }

    /// Throws DataError for a tensor in the files that the forward would pass over. Frequencies of
    /// the rotation, which older programs stored, are no weights.
    void refuse_unread() const {
        for (const auto& name : from_.names())
            if (!read_.contains(name) && !name.ends_with(".rotary_emb.inv_freq"))
                throw DataError("tensor '" + name + "' has no place in a " +
                                    from_.config().model_type + " of this config",
                                from_.path().string(),
                                "Use the config.json that belongs to these weights");
    }

private:
    TensorView checked(const std::string& name, const Shape& shape) {
        if (!from_.contains(name))
            throw DataError("no tensor '" + name + "', which a " + from_.config().model_type +
                                " of this config has",
                            from_.path().string(),
                            "Use the config.json that belongs to these weights");
        const auto view = from_.at(name);
        if (!(view.shape == shape))
            throw DataError("shape " + view.shape.text() + ", but the config says " + shape.text(),
                            name, "Use the config.json that belongs to these weights");
        if (view.dtype != DType::F32 && view.dtype != DType::F16 && view.dtype != DType::BF16)
            throw DataError("dtype " + std::string(name_of(view.dtype)), name,
                            "Convert the model to bfloat16, float16 or float32");
        read_.insert(name);
        return view;
    }

    // Looks at all parts before it takes memory: a config may say any size.
    Tensor stacked(const Parts& parts, const char* kind,
                   const std::function<Shape(std::int64_t)>& shape_of) {
        std::vector<TensorView> views;
        std::int64_t rows = 0;
        for (const auto& [name, n] : parts) {
            views.push_back(checked(name + kind, shape_of(n)));
            rows += n;
        }
        Tensor t(DType::F32, shape_of(rows));
        auto* to = t.mutable_view().data;
        for (const auto& v : views) {
            const MutableTensorView part{to, DType::F32, v.shape};
            convert_into(v, part);
            to += part.size_bytes();
        }
        return t;
    }

    const HfWeights& from_;
    std::set<std::string> read_;
};

/// Layer i. D = hidden_size, F = intermediate_size.
inline TargetLayer read_layer(WeightReader& read, const ModelConfig& c, const TargetFamily& family,
                              std::int64_t i) {
    const auto width = c.hidden_size, ff = c.intermediate_size;
    const auto q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
    const auto at = [&](const char* part) {
        return "model.layers." + std::to_string(i) + "." + part;
    };
    const WeightReader::Parts qkv{
        {at("self_attn.q_proj"), q}, {at("self_attn.k_proj"), kv}, {at("self_attn.v_proj"), kv}};
    const WeightReader::Parts output{{at("self_attn.o_proj"), width}};
    const WeightReader::Parts gate_up{{at("mlp.gate_proj"), ff}, {at("mlp.up_proj"), ff}};
    const WeightReader::Parts down{{at("mlp.down_proj"), width}};
    TargetLayer l;
    l.input_norm = read.norm(at("input_layernorm"), width);
    l.qkv = read.matrix(qkv, width);
    if (family.qkv_bias) l.qkv_bias = read.bias(qkv);
    if (family.head_norms) {
        l.q_norm = read.norm(at("self_attn.q_norm"), c.head_dim);
        l.k_norm = read.norm(at("self_attn.k_norm"), c.head_dim);
    }
    l.output = read.matrix(output, q);
    if (family.output_bias) l.output_bias = read.bias(output);
    l.post_norm = read.norm(at("post_attention_layernorm"), width);
    l.gate_up = read.matrix(gate_up, width);
    if (family.mlp_bias) l.gate_up_bias = read.bias(gate_up);
    l.down = read.matrix(down, ff);
    if (family.mlp_bias) l.down_bias = read.bias(down);
    return l;
}

}  // namespace detail

namespace detail {

/// XXH3-64 over the config and every weight. Biases and norms of heads count with their names, and
/// not at all where there are none, so that the fingerprint of a model without any is the one that
/// features were captured under before eyas knew of them.
class TargetFingerprint {
public:
    explicit TargetFingerprint(const ModelConfig& config) : all_(config.source.dump()) {}

    void add(const Tensor& t, const char* name = "") {
        if (!t.empty()) all_ += name + hex64(xxh3(t.view().bytes()));
    }
    void add(const TargetLayer& l) {
        add(l.input_norm), add(l.qkv), add(l.output), add(l.post_norm), add(l.gate_up), add(l.down);
        add(l.qkv_bias, "qkv_bias"), add(l.q_norm, "q_norm"), add(l.k_norm, "k_norm");
        add(l.output_bias, "output_bias"), add(l.gate_up_bias, "gate_up_bias");
        add(l.down_bias, "down_bias");
    }
    std::string text() const { return hex64(xxh3(std::as_bytes(std::span(all_)))); }

private:
    std::string all_;
};

/// Reads a model piece by piece, in the order of its fingerprint, and gives each to `take`:
/// embedding, head (empty where it is tied), final norm, then the layers.
template <class Take>
void each_target_part(const HfWeights& from, const Take& take) {
    const auto& c = from.config();
    const auto family = target_family(c);
    WeightReader read(from);
    take(read.matrix({{"model.embed_tokens", c.vocab_size}}, c.hidden_size));
    if (c.tie_word_embeddings) {
        read.expect_same("lm_head.weight", "model.embed_tokens.weight");
        take(Tensor());
    } else {
        take(read.matrix({{"lm_head", c.vocab_size}}, c.hidden_size));
    }
    take(read.norm("model.norm", c.hidden_size));
    for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) take(read_layer(read, c, family, i));
    read.refuse_unread();
}

}  // namespace detail

/// Reads and widens a model of any size that target_family() knows. Throws DataError for a model of
/// another architecture, for weights that are missing or do not fit the config, and for tensors in
/// the files that the forward would pass over.
inline TargetWeights load_target_weights(const HfWeights& from) {
    struct Collect {
        TargetWeights w;
        Tensor* next[3] = {&w.embedding, &w.head, &w.final_norm};
        int taken = 0;

        void operator()(Tensor t) { *next[taken++] = std::move(t); }
        void operator()(TargetLayer l) { w.layers.push_back(std::move(l)); }
    } collect;
    detail::each_target_part(from, [&]<class Part>(Part part) { collect(std::move(part)); });
    return std::move(collect.w);
}

/// 16 hexadecimal digits: equal for equal configs and weights.
inline std::string fingerprint(const TargetWeights& w, const ModelConfig& config) {
    detail::TargetFingerprint all(config);
    all.add(w.embedding), all.add(w.head), all.add(w.final_norm);
    for (const auto& l : w.layers) all.add(l);
    return all.text();
}

/// The same of a model's files, of which a layer (or the embedding) is in memory at a time. Throws
/// what load_target_weights() does.
inline std::string fingerprint(const HfWeights& from) {
    detail::TargetFingerprint all(from.config());
    detail::each_target_part(from, [&](const auto& part) { all.add(part); });
    return all.text();
}

}  // namespace eyas
