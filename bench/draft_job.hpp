#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "eyas/device/cpu.hpp"
#include "eyas/model/eagle3.hpp"

namespace eyas::bench {

struct BenchShape {
    std::int64_t D, F, H, G, V, W;
};
inline const std::map<std::string, BenchShape> shapes{{"S", {576, 1536, 9, 3, 49152, 8192}},
                                                      {"M", {2048, 8192, 32, 8, 128256, 32000}},
                                                      {"tiny", {64, 128, 4, 2, 512, 128}}};

inline Tensor random_tensor(const Shape& shape, unsigned seed) {
    Tensor t(DType::F32, shape);
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(-1.f, 1.f);
    for (float& v : t.as<float>()) v = uniform(random);
    return t;
}

/// A draft of a shape, with a made-up target.
inline std::unique_ptr<Eagle3<Cpu, F32>> make_draft(const BenchShape& s, std::int64_t tokens,
                                                    std::int64_t ttt_length, const Tensor& head) {
    VocabMap map;
    map.d2t.assign(static_cast<std::size_t>(s.W), 0);
    map.t2d.assign(static_cast<std::size_t>(s.V), 0);
    std::fill_n(map.t2d.begin(), s.W, 1);
    const auto config = parse_model_config(Json{{"hidden_size", s.D},
                                                {"intermediate_size", s.F},
                                                {"num_attention_heads", s.H},
                                                {"num_key_value_heads", s.G},
                                                {"vocab_size", s.V},
                                                {"draft_vocab_size", s.W},
                                                {"max_position_embeddings", tokens + 64}},
                                           "bench");
    Eagle3Options options;
    options.ttt_length = ttt_length;
    return std::make_unique<Eagle3<Cpu, F32>>(config, options, map, FrozenTarget{head, head}, 1);
}

/// One sample of `tokens` tokens, of which the first share `supervised` counts.
struct DraftBatch {
    DraftBatch(const BenchShape& s, std::int64_t tokens, double supervised, const Tensor& head,
               unsigned seed)
        : hidden(random_tensor({1, tokens, 3 * s.D}, seed)), target(DType::F32, {1, tokens, s.D}) {
        // Teacher states are head rows of draft tokens, whose own logit is by far the largest: so
        // every row's arg-max has a draft id and is in the loss.
        for (std::int64_t t = 0; t < tokens; ++t)
            std::copy_n(head.as<float>().data() + (t * 31 % s.W) * s.D, s.D,
                        target.as<float>().data() + t * s.D);
        for (auto* i : {&ids, &ones, &mask}) *i = Tensor::zeros(DType::I64, {1, tokens});
        std::ranges::fill(ones.as<std::int64_t>(), 1);
        for (std::int64_t t = 0; t < tokens; ++t) {
            ids.as<std::int64_t>()[static_cast<std::size_t>(t)] = (t * 7919) % s.V;
            mask.as<std::int64_t>()[static_cast<std::size_t>(t)] =
                static_cast<double>(t) < supervised * static_cast<double>(tokens);
        }
    }
    Batch view() const { return {ids, ones, mask, hidden, target, {}, {"bench"}}; }

    Tensor hidden, target, ids, ones, mask;
};

}  // namespace eyas::bench
