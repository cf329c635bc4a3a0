#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eyas/eyas.hpp"

namespace eyas::test {

/// An EAGLE3 draft for a made-up target, small enough to train in no time, and features for it.
constexpr std::int64_t D = 16, V = 24, W = 12;

inline Tensor random_tensor(DType dtype, const Shape& shape, std::mt19937& random) {
    Tensor wide(DType::F32, shape), t(dtype, shape);
    for (auto& x : wide.as<float>()) x = static_cast<float>(random() % 1000) / 500.f - 1.f;
    convert_into(wide, t.mutable_view());
    return t;
}

/// Feature files as capture writes them, 5 to 12 tokens each.
inline void write_features(const std::filesystem::path& dir, int samples, DType dtype) {
    eyas::create_directories(dir);
    std::mt19937 random(3);
    for (int s = 0; s < samples; ++s) {
        const auto rows = static_cast<std::int64_t>(5 + random() % 8);
        Tensor ids(DType::I64, Shape{rows}), mask(DType::I64, Shape{rows});
        for (auto& x : ids.as<std::int64_t>()) x = random() % V;
        for (auto& x : mask.as<std::int64_t>()) x = random() % 4 != 0;
        mask.as<std::int64_t>()[1] = 1;
        const auto aux = random_tensor(dtype, Shape{1, rows, 3 * D}, random);
        const auto last = random_tensor(dtype, Shape{1, rows, D}, random);
        const std::vector<NamedTensor> tensors{{"input_ids", ids},
                                               {"loss_mask", mask},
                                               {"aux_hidden_state", aux},
                                               {"hidden_state", last}};
        write_torch_file(dir / ("data_" + std::to_string(s) + ".ckpt"),
                         std::span<const NamedTensor>(tensors));
    }
}

inline ModelConfig tiny_config() {
    return parse_model_config({{"hidden_size", D},
                               {"intermediate_size", 24},
                               {"num_attention_heads", 2},
                               {"num_key_value_heads", 1},
                               {"vocab_size", V},
                               {"draft_vocab_size", W}},
                              "test");
}

template <PrecisionPolicy P, Device Dev = Cpu>
struct TinyDraft {
    explicit TinyDraft(std::uint64_t seed = 1, Activations activations = Activations::Keep,
                       Dev device = Dev{}, bool replay_steps = false)
        : random(7) {
        embed = random_tensor(DType::F32, Shape{V, D}, random);
        head = random_tensor(DType::F32, Shape{V, D}, random);
        VocabMap map;
        for (std::int64_t v = 0; v < V; ++v) map.t2d.push_back(v % 2 == 0);
        for (std::int64_t d = 0; d < W; ++d) map.d2t.push_back(d);
        model = std::make_unique<Eagle3<Dev, P>>(
            tiny_config(),
            Eagle3Options{
                .ttt_length = 3, .activations = activations, .replay_steps = replay_steps},
            map, FrozenTarget{embed, head}, seed, std::move(device));
    }
    std::mt19937 random;
    Tensor embed, head;
    std::unique_ptr<Eagle3<Dev, P>> model;
};

}  // namespace eyas::test
