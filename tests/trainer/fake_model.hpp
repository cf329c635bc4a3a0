#pragma once
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "eyas/device/cpu.hpp"
#include "eyas/device/precision.hpp"
#include "eyas/model/concept.hpp"
#include "eyas/trainer/batch_source.hpp"

namespace eyas::test {

/// A linear draft: out = fc * hidden_state, loss 0.5 * mean over rows of mask * |out - target|^2,
/// plus a quadratic pull on lm_head; K = 2 TTT steps that see the same numbers. Small enough to
/// check by hand, with the names, shapes and kinds of parameters of the real one.
template <PrecisionPolicy P = F32>
class FakeModel {
public:
    using DeviceType = Cpu;
    using PrecisionType = P;
    using Element = typename P::Element;
    static constexpr std::int64_t D = 4, W = 6, V = 8, K = 2;

    explicit FakeModel(std::uint64_t seed = 1) {
        config_.hidden_size = config_.target_hidden_size = D;
        config_.intermediate_size = 8;
        config_.num_attention_heads = config_.num_key_value_heads = 1;
        config_.head_dim = D;
        config_.vocab_size = V;
        config_.draft_vocab_size = W;
        map_.t2d.assign(V, 0);
        for (std::int64_t d = 0; d < W; ++d) map_.t2d[static_cast<std::size_t>(d)] = 1;
        map_.d2t.assign(W, 0);
        add("fc.weight", {D, 3 * D}, true);
        add("norm.weight", {D}, false);
        add("lm_head.weight", {W, D}, true);
        std::mt19937 random(static_cast<std::uint32_t>(seed));
        for (auto& p : parameters_)
            for (auto& x : p.value.template as<Element>())
                x = Element(static_cast<float>(random() % 1000) / 1000.f - 0.5f);
    }
    FakeModel(const FakeModel&) = delete;
    FakeModel& operator=(const FakeModel&) = delete;

    StepMetrics forward_backward(const Batch& batch, float scale) { return run(batch, scale); }
    StepMetrics evaluate(const Batch& batch) { return run(batch, 0.f); }
    std::span<const Parameter> parameters() { return parameters_; }
    void zero_gradients() {
        for (auto& g : grads_)
            for (auto& x : g.as<float>()) x = 0;
    }
    const ModelConfig& config() const { return config_; }
    const VocabMap& vocab_map() const { return map_; }
    const Cpu& device() const { return cpu_; }

    ModelConfig config_;
    VocabMap map_;

private:
    void add(const std::string& name, const Shape& shape, bool trained) {
        values_.push_back(Tensor::zeros(dtype_of<Element>, shape));
        grads_.push_back(Tensor::zeros(DType::F32, shape));
        parameters_.push_back(
            {name, values_.back().mutable_view(), grads_.back().mutable_view(), trained});
    }

    StepMetrics run(const Batch& batch, float scale) {
        const auto rows = batch.batch_size() * batch.tokens();
        const auto w = parameters_[0].value.template as<Element>();
        const auto dw = parameters_[0].grad.template as<float>();
        const auto h = batch.hidden_state.as<float>(), t = batch.target.as<float>();
        const auto mask = batch.loss_mask.as<std::int64_t>();
        double loss = 0, supervised = 0;
        for (std::int64_t r = 0; r < rows; ++r) {
            if (mask[at(r)] == 0) continue;
            supervised += 1;
            for (std::int64_t i = 0; i < D; ++i) {
                float out = 0;
                for (std::int64_t j = 0; j < 3 * D; ++j)
                    out += static_cast<float>(w[at(i * 3 * D + j)]) * h[at(r * 3 * D + j)];
                const float e = (out - t[at(r * D + i)]) / static_cast<float>(rows);
                loss += 0.5 * static_cast<double>(e) * static_cast<double>(out - t[at(r * D + i)]);
                for (std::int64_t j = 0; j < 3 * D; ++j)
                    dw[at(i * 3 * D + j)] += scale * e * h[at(r * 3 * D + j)];
            }
        }
        const auto v = parameters_[2].value.template as<Element>();
        const auto dv = parameters_[2].grad.template as<float>();
        for (std::size_t i = 0; i < v.size(); ++i)
            dv[i] += scale * 0.01f * static_cast<float>(v[i]);
        StepMetrics m;
        m.loss.assign(K, loss);
        m.correct.assign(K, supervised / 2);
        m.supervised.assign(K, supervised);
        m.acceptance_sum.assign(K, supervised / 4);
        m.acceptance_rows.assign(K, supervised);
        m.total_loss = loss;
        return m;
    }
    static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

    Cpu cpu_;
    std::vector<Tensor> values_, grads_;
    std::vector<Parameter> parameters_;
};
static_assert(DraftModel<FakeModel<F32>> && DraftModel<FakeModel<Bf16>>);

/// Batches made up from seed, epoch and number; every position is reproducible.
class FakeLoader {
public:
    struct Position {
        std::int64_t epoch = 0, batch = 0;
    };
    static constexpr std::int64_t B = 2, T = 3, D = 4;

    FakeLoader(std::int64_t batches, std::int64_t epochs, std::uint32_t seed = 5)
        : batches_(batches), epochs_(epochs), seed_(seed) {}

    const Batch* next() {
        if (position_.epoch >= epochs_) return nullptr;
        fill();
        if (++position_.batch == batches_) position_ = {position_.epoch + 1, 0};
        return &batch_;
    }
    void seek(Position p) { position_ = p; }
    Position position() const { return position_; }
    std::int64_t batches_per_epoch() const { return batches_; }
    double stall_seconds() const { return 0; }
    bool interrupted() const { return false; }
    void acknowledge(Position p, std::int64_t step) { acknowledged.push_back({p, step}); }

    std::vector<std::pair<Position, std::int64_t>> acknowledged = {};
    std::int64_t poison_epoch = -1, poison_batch = -1;  // this batch holds a NaN

private:
    void fill() {
        std::mt19937 random(seed_ +
                            static_cast<std::uint32_t>(position_.epoch * 1000 + position_.batch));
        const auto real = [&] { return static_cast<float>(random() % 2000) / 1000.f - 1.f; };
        for (auto& x : hidden_.as<float>()) x = real();
        for (auto& x : target_.as<float>()) x = real();
        for (auto& x : ones_.as<std::int64_t>()) x = 1;
        for (auto& x : mask_.as<std::int64_t>()) x = random() % 4 != 0;
        if (position_.epoch == poison_epoch && position_.batch == poison_batch) {
            hidden_.as<float>()[0] = std::nanf("");
            mask_.as<std::int64_t>()[0] = 1;
        }
        batch_ = {ones_, ones_, mask_, hidden_, target_, std::nullopt, {}};
        for (std::int64_t b = 0; b < B; ++b)
            batch_.sample_ids.push_back("e" + std::to_string(position_.epoch) + "b" +
                                        std::to_string(position_.batch) + "s" + std::to_string(b));
    }

    std::int64_t batches_, epochs_;
    std::uint32_t seed_;
    Position position_;
    Tensor ones_{DType::I64, Shape{B, T}}, mask_{DType::I64, Shape{B, T}},
        hidden_{DType::F32, Shape{B, T, 3 * D}}, target_{DType::F32, Shape{B, T, D}};
    Batch batch_;
};
static_assert(BatchSource<FakeLoader>);

}  // namespace eyas::test
