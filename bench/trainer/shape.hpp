#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "eyas/format/hf_config.hpp"
#include "eyas/loader/batch.hpp"
#include "eyas/sample/vocab_map.hpp"

// What is trained: shapes of targets and random features.
namespace eyas::bench {

struct StepShape {
    std::int64_t D, F, H, G, V, W;

    std::int64_t qkv() const { return D + 2 * G * (D / H); }
};

/// S is like SmolLM2-135M, M like Llama-3.2-1B, L like Llama-3.1-8B.
inline const std::map<std::string, StepShape>& step_shapes() {
    static const std::map<std::string, StepShape> all{{"S", {576, 1536, 9, 3, 49152, 8192}},
                                                      {"M", {2048, 8192, 32, 8, 128256, 32000}},
                                                      {"L", {4096, 14336, 32, 8, 128256, 32000}},
                                                      {"tiny", {64, 128, 4, 2, 512, 128}}};
    return all;
}

inline ModelConfig config_of(const StepShape& s, std::int64_t T) {
    return parse_model_config(Json{{"hidden_size", s.D},
                                   {"intermediate_size", s.F},
                                   {"num_attention_heads", s.H},
                                   {"num_key_value_heads", s.G},
                                   {"vocab_size", s.V},
                                   {"draft_vocab_size", s.W},
                                   {"max_position_embeddings", T + 64}},
                              "bench");
}

/// The layers of a TTT step as (name, out, in).
struct Layer {
    const char* name;
    std::int64_t out, in;
};
inline std::vector<Layer> layers_of(const StepShape& s) {
    return {{"qkv", s.qkv(), 2 * s.D},
            {"o", s.D, s.D},
            {"gate_up", 2 * s.F, s.D},
            {"down", s.D, s.F},
            {"draft head", s.W, s.D}};
}

/// Multiply-add counts 2; the formula counts every row and the causal half of attention, whatever
/// the step skips or does twice, so that rates of different programs compare.
inline double step_flops(const StepShape& s, std::int64_t tokens, std::int64_t ttt) {
    const auto T = static_cast<double>(tokens), d = static_cast<double>(s.D);
    double layers = 2 * T * T * d;
    for (const auto& l : layers_of(s)) layers += 2 * T * static_cast<double>(l.out * l.in);
    return 2 * T * d * static_cast<double>(s.V) + 12 * T * d * d +
           static_cast<double>(ttt) * 3 * layers;
}

inline Tensor random_tensor(const Shape& shape, unsigned seed) {
    Tensor t(DType::F32, shape);
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(-1.f, 1.f);
    for (float& v : t.as<float>()) v = uniform(random);
    return t;
}

/// The first W tokens are the draft's.
inline VocabMap first_tokens(std::int64_t V, std::int64_t W) {
    VocabMap m;
    m.d2t.assign(static_cast<std::size_t>(W), 0);
    m.t2d.assign(static_cast<std::size_t>(V), 0);
    std::fill_n(m.t2d.begin(), W, 1);
    return m;
}

/// One sample of T tokens whose first `supervised` are in the loss, and what its tensors view.
struct BenchBatch {
    Tensor ids, ones, mask, hidden, target;
    Batch batch;

    /// Teacher states are rows of the head `head` [V, D] of draft tokens, whose own logit is by far
    /// the largest: so every row's arg-max has a draft id and is in the loss.
    BenchBatch(const StepShape& s, std::int64_t T, std::int64_t supervised, const Tensor& head,
               unsigned seed = 2)
        : ids(Tensor::zeros(DType::I64, {1, T})),
          ones(Tensor::zeros(DType::I64, {1, T})),
          mask(Tensor::zeros(DType::I64, {1, T})),
          hidden(random_tensor({1, T, 3 * s.D}, seed)),
          target(DType::F32, {1, T, s.D}) {
        std::ranges::fill(ones.as<std::int64_t>(), 1);
        for (std::int64_t t = 0; t < T; ++t) {
            const auto at = static_cast<std::size_t>(t);
            ids.as<std::int64_t>()[at] = (t * 7919) % s.V;
            mask.as<std::int64_t>()[at] = t < supervised;
            std::copy_n(head.as<float>().data() + (t * 31 % s.W) * s.D, s.D,
                        target.as<float>().data() + t * s.D);
        }
        batch = {ids, ones, mask, hidden, target, {}, {"bench"}};
    }
};

}  // namespace eyas::bench
