#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "eyas/core/convert.hpp"
#include "eyas/model/eagle3.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/optimizer/clip.hpp"

namespace eyas::bench {

struct BenchShape {
    std::int64_t D, F, H, G, V, W;
};
inline const std::map<std::string, BenchShape> shapes{{"S", {576, 1536, 9, 3, 49152, 8192}},
                                                      {"M", {2048, 8192, 32, 8, 128256, 32000}},
                                                      {"8B", {4096, 14336, 32, 8, 128256, 32000}},
                                                      {"tiny", {64, 128, 4, 2, 512, 128}}};

/// Multiply-add counts 2; the formula counts every row and the causal half of attention, whatever
/// the step skips, so that rates of different programs compare.
inline double step_flops(const BenchShape& s, double T, double K) {
    const auto d = static_cast<double>(s.D), kv = static_cast<double>(s.G * (s.D / s.H));
    const double step = 2 * T *
                            (2 * d * (d + 2 * kv) + d * d + 3 * d * static_cast<double>(s.F) +
                             d * static_cast<double>(s.W)) +
                        2 * T * T * d;
    return 2 * T * d * static_cast<double>(s.V) + 12 * T * d * d + K * 3 * step;
}

inline Tensor random_tensor(const Shape& shape, std::uint64_t state) {
    Tensor t(DType::F32, shape);
    for (float& v : t.as<float>()) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        v = static_cast<float>(state >> 40) * 0x1p-23f - 1.f;
    }
    return t;
}

inline VocabMap first_tokens(std::int64_t V, std::int64_t W) {
    VocabMap m;
    m.d2t.assign(static_cast<std::size_t>(W), 0);
    m.t2d.assign(static_cast<std::size_t>(V), 0);
    std::fill_n(m.t2d.begin(), W, 1);
    return m;
}

/// A draft of a shape, an optimizer and one batch of random features.
template <class Model>
class TrainJob {
public:
    TrainJob(const BenchShape& s, std::int64_t T, std::int64_t ttt, double supervised)
        : target_(dtype_of<typename Model::Element>, {1, T, s.D}),
          hidden_(in_precision(random_tensor({1, T, 3 * s.D}, 2))),
          ids_(Tensor::zeros(DType::I64, {1, T})),
          ones_(Tensor::zeros(DType::I64, {1, T})),
          mask_(Tensor::zeros(DType::I64, {1, T})) {
        const auto config = parse_model_config(Json{{"hidden_size", s.D},
                                                    {"intermediate_size", s.F},
                                                    {"num_attention_heads", s.H},
                                                    {"num_key_value_heads", s.G},
                                                    {"vocab_size", s.V},
                                                    {"draft_vocab_size", s.W},
                                                    {"max_position_embeddings", T + 64}},
                                               "bench");
        Eagle3Options options;
        options.ttt_length = ttt;
        const auto head = random_tensor({s.V, s.D}, 1);
        model = std::make_unique<Model>(config, options, first_tokens(s.V, s.W),
                                        FrozenTarget{head, head}, 1);
        // Teacher states are head rows of draft tokens, whose own logit is by far the largest: so
        // every row's arg-max has a draft id and is in the loss.
        Tensor states(DType::F32, target_.shape());
        for (std::int64_t t = 0; t < T; ++t)
            std::copy_n(head.as<float>().data() + (t * 31 % s.W) * s.D, s.D,
                        states.as<float>().data() + t * s.D);
        target_ = in_precision(states);
        optimizer = std::make_unique<AdamW<typename Model::DeviceType>>(
            model->device(), model->parameters(), AdamWOptions{});
        std::ranges::fill(ones_.as<std::int64_t>(), 1);
        for (std::int64_t t = 0; t < T; ++t) {
            ids_.as<std::int64_t>()[static_cast<std::size_t>(t)] = (t * 7919) % s.V;
            mask_.as<std::int64_t>()[static_cast<std::size_t>(t)] =
                static_cast<double>(t) < supervised * static_cast<double>(T);
        }
    }

    Batch batch() const { return {ids_, ones_, mask_, hidden_, target_, {}, {"bench"}}; }

    /// One training step: forward, backward, clip, AdamW.
    void step() {
        model->zero_gradients();
        const auto& m = model->forward_backward(batch(), 1.f);
        accepted = m.acceptance_rows[0];
        loss = m.total_loss;
        const double norm = global_norm(model->device(), std::span(model->parameters()));
        optimizer->step(1e-4, clip_scale(norm, 0.5));
    }

    std::unique_ptr<Model> model;
    std::unique_ptr<AdamW<typename Model::DeviceType>> optimizer;
    double accepted = 0, loss = 0;  // of the last step

private:
    /// Features as a capture in the model's precision has them.
    static Tensor in_precision(const TensorView& v) {
        Tensor t(dtype_of<typename Model::Element>, v.shape);
        convert_into(v, t.mutable_view());
        return t;
    }
    Tensor target_, hidden_, ids_, ones_, mask_;
};

}  // namespace eyas::bench
