#pragma once
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "eyas/core/bfloat16.hpp"
#include "eyas/core/file.hpp"
#include "eyas/core/json.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/format/safetensors.hpp"

namespace eyas::test {

/// A directory of this test's own, empty, removed at the end.
class ScratchDirectory {
public:
    ScratchDirectory() {
        const char* given = std::getenv("TEST_TMPDIR");
        const auto root =
            given ? std::filesystem::path(given) : std::filesystem::temp_directory_path();
        auto name = (root / "capture-XXXXXX").string();
        if (!::mkdtemp(name.data())) throw std::runtime_error("no scratch directory in " + name);
        path_ = name;
    }
    ScratchDirectory(const ScratchDirectory&) = delete;
    ScratchDirectory& operator=(const ScratchDirectory&) = delete;
    ~ScratchDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    const std::filesystem::path& path() const { return path_; }

private:
    std::filesystem::path path_;
};

using Matrix = std::vector<double>;  // row-major

struct TinySizes {
    std::int64_t width = 20, ff = 28, layers = 6, heads = 4, groups = 2, head = 10, vocab = 50;
};
/// Sizes whose weights a PackingDevice packs: a row's bits depend on its own tokens alone then.
inline constexpr TinySizes packable{32, 48, 6, 4, 2, 12, 64};

/// A small random Llama with grouped heads and a head width of its own, and its forward written a
/// second time: in double, token by token, straight from the equations of the Llama papers, with
/// nothing of eyas in it.
struct TinyLlama : TinySizes {
    bool tied = true;
    double theta = 10000, epsilon = 1e-5;
    std::map<std::string, std::vector<float>> weights;  // values that bfloat16 holds exactly
    std::map<std::string, Shape> shapes;

    explicit TinyLlama(bool tied_head = true, std::uint32_t seed = 1, TinySizes sizes = {})
        : TinySizes(sizes), tied(tied_head) {
        std::mt19937 random(seed);
        add(random, "model.embed_tokens.weight", {vocab, width}, 0, 1);
        if (!tied) add(random, "lm_head.weight", {vocab, width}, 0, 0.3);
        add(random, "model.norm.weight", {width}, 1, 0.1);
        for (std::int64_t l = 0; l < layers; ++l) {
            const auto name = [&](const char* part) { return layer_name(l, part); };
            add(random, name("input_layernorm"), {width}, 1, 0.1);
            add(random, name("post_attention_layernorm"), {width}, 1, 0.1);
            add(random, name("self_attn.q_proj"), {heads * head, width}, 0, 0.3);
            add(random, name("self_attn.k_proj"), {groups * head, width}, 0, 0.3);
            add(random, name("self_attn.v_proj"), {groups * head, width}, 0, 0.3);
            add(random, name("self_attn.o_proj"), {width, heads * head}, 0, 0.2);
            add(random, name("mlp.gate_proj"), {ff, width}, 0, 0.3);
            add(random, name("mlp.up_proj"), {ff, width}, 0, 0.3);
            add(random, name("mlp.down_proj"), {width, ff}, 0, 0.3);
        }
    }

    static std::string layer_name(std::int64_t l, const std::string& part) {
        return "model.layers." + std::to_string(l) + "." + part + ".weight";
    }

    Json config() const {
        return {{"model_type", "llama"},
                {"hidden_size", width},
                {"intermediate_size", ff},
                {"num_hidden_layers", layers},
                {"num_attention_heads", heads},
                {"num_key_value_heads", groups},
                {"head_dim", head},
                {"vocab_size", vocab},
                {"max_position_embeddings", 128},
                {"rms_norm_eps", epsilon},
                {"rope_theta", theta},
                {"tie_word_embeddings", tied},
                {"hidden_act", "silu"}};
    }

    /// Writes config.json and model.safetensors, weights as `dtype` (F32 or BF16).
    void write(const std::filesystem::path& dir, DType dtype, const Json& config_json) const {
        eyas::create_directories(dir);
        write_text_file(dir / "config.json", config_json.dump());
        std::vector<Tensor> owned;
        std::vector<NamedTensor> tensors;
        for (const auto& [name, values] : weights) {
            owned.emplace_back(dtype, shapes.at(name));
            for (std::size_t i = 0; i < values.size(); ++i) {
                if (dtype == DType::F32) owned.back().as<float>()[i] = values[i];
                if (dtype == DType::BF16) owned.back().as<BFloat16>()[i] = BFloat16(values[i]);
            }
            tensors.push_back({name, owned.back().view()});
        }
        write_safetensors(dir / "model.safetensors", tensors, {}, {.durable = false});
    }
    void write(const std::filesystem::path& dir, DType dtype = DType::BF16) const {
        write(dir, dtype, config());
    }

    /// states[l] [T, D]: the residual stream after layer l; the last entry is the normed final
    /// state.
    std::vector<Matrix> forward(const std::vector<std::int64_t>& ids) const {
        const auto tokens = static_cast<std::int64_t>(ids.size());
        Matrix x;
        for (auto id : ids)
            for (std::int64_t j = 0; j < width; ++j)
                x.push_back(weight("model.embed_tokens.weight", id * width + j));
        std::vector<Matrix> states;
        for (std::int64_t l = 0; l < layers; ++l) {
            add_attention(l, tokens, x);
            add_feed_forward(l, x);
            states.push_back(x);
        }
        states.push_back(normed(x, "model.norm.weight"));
        return states;
    }

    /// logits [T, V] of normed final states.
    Matrix logits(const Matrix& last) const {
        return product(last, tied ? "model.embed_tokens.weight" : "lm_head.weight");
    }

private:
    void add(std::mt19937& random, const std::string& name, Shape shape, double mean,
             double deviation) {
        std::normal_distribution<double> normal(mean, deviation);
        std::vector<float> values(static_cast<std::size_t>(shape.elements()));
        for (auto& v : values) v = static_cast<float>(BFloat16(static_cast<float>(normal(random))));
        weights[name] = values;
        shapes[name] = shape;
    }

    double weight(const std::string& name, std::int64_t i) const {
        return static_cast<double>(weights.at(name)[static_cast<std::size_t>(i)]);
    }

    // x [T, in] -> x W^T [T, out]
    Matrix product(const Matrix& x, const std::string& name) const {
        const auto out = shapes.at(name)[0], in = shapes.at(name)[1];
        Matrix y;
        for (std::size_t from = 0; from < x.size(); from += static_cast<std::size_t>(in))
            for (std::int64_t o = 0; o < out; ++o) {
                double sum = 0;
                for (std::int64_t i = 0; i < in; ++i)
                    sum += x[from + static_cast<std::size_t>(i)] * weight(name, o * in + i);
                y.push_back(sum);
            }
        return y;
    }

    Matrix normed(const Matrix& x, const std::string& name) const {
        const auto w = static_cast<std::size_t>(width);
        Matrix y;
        for (std::size_t from = 0; from < x.size(); from += w) {
            double squares = 0;
            for (std::size_t j = 0; j < w; ++j) squares += x[from + j] * x[from + j];
            const double rms = std::sqrt(squares / static_cast<double>(width) + epsilon);
            for (std::size_t j = 0; j < w; ++j)
                y.push_back(x[from + j] / rms * weight(name, static_cast<std::int64_t>(j)));
        }
        return y;
    }

    // Rotates pair (j, j + E/2) of every head by position * theta^(-2j/E).
    Matrix rotated(Matrix x, std::int64_t count) const {
        const auto row = static_cast<std::size_t>(count * head);
        for (std::size_t i = 0; i < x.size(); ++i) {
            const auto e = static_cast<std::int64_t>(i) % head;
            if (e >= head / 2) continue;
            const double angle =
                static_cast<double>(i / row) *
                std::pow(theta, -2.0 * static_cast<double>(e) / static_cast<double>(head));
            auto& a = x[i];
            auto& b = x[i + static_cast<std::size_t>(head / 2)];
            const double u = a * std::cos(angle) - b * std::sin(angle);
            b = b * std::cos(angle) + a * std::sin(angle);
            a = u;
        }
        return x;
    }

    void add_attention(std::int64_t l, std::int64_t tokens, Matrix& x) const {
        const auto n = normed(x, layer_name(l, "input_layernorm"));
        const auto q = rotated(product(n, layer_name(l, "self_attn.q_proj")), heads);
        const auto k = rotated(product(n, layer_name(l, "self_attn.k_proj")), groups);
        const auto v = product(n, layer_name(l, "self_attn.v_proj"));
        const auto at = [&](const Matrix& m, std::int64_t count, std::int64_t t, std::int64_t h,
                            std::int64_t e) {
            return m[static_cast<std::size_t>((t * count + h) * head + e)];
        };
        Matrix context(q.size());
        for (std::int64_t t = 0; t < tokens; ++t)
            for (std::int64_t h = 0; h < heads; ++h) {
                const auto g = h / (heads / groups);
                std::vector<double> weight_of;
                double total = 0;
                for (std::int64_t s = 0; s <= t; ++s) {
                    double dot = 0;
                    for (std::int64_t e = 0; e < head; ++e)
                        dot += at(q, heads, t, h, e) * at(k, groups, s, g, e);
                    weight_of.push_back(std::exp(dot / std::sqrt(static_cast<double>(head))));
                    total += weight_of.back();
                }
                for (std::int64_t s = 0; s <= t; ++s)
                    for (std::int64_t e = 0; e < head; ++e)
                        context[static_cast<std::size_t>((t * heads + h) * head + e)] +=
                            weight_of[static_cast<std::size_t>(s)] / total * at(v, groups, s, g, e);
            }
        const auto out = product(context, layer_name(l, "self_attn.o_proj"));
        for (std::size_t i = 0; i < x.size(); ++i) x[i] += out[i];
    }

    void add_feed_forward(std::int64_t l, Matrix& x) const {
        const auto n = normed(x, layer_name(l, "post_attention_layernorm"));
        auto gate = product(n, layer_name(l, "mlp.gate_proj"));
        const auto up = product(n, layer_name(l, "mlp.up_proj"));
        for (std::size_t i = 0; i < gate.size(); ++i)
            gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
        const auto out = product(gate, layer_name(l, "mlp.down_proj"));
        for (std::size_t i = 0; i < x.size(); ++i) x[i] += out[i];
    }
};

/// `count` token ids below `vocab`, the same for the same seed.
inline std::vector<std::int64_t> random_ids(std::int64_t count, std::int64_t vocab,
                                            std::uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<std::int64_t> ids;
    for (std::int64_t i = 0; i < count; ++i)
        ids.push_back(static_cast<std::int64_t>(random()) % vocab);
    return ids;
}

}  // namespace eyas::test
