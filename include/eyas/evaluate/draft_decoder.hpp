#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eyas/capture/kv_cache.hpp"
#include "eyas/capture/row_plan.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/device/concept.hpp"
#include "eyas/format/hf_config.hpp"
#include "eyas/ops/embedding.hpp"
#include "eyas/ops/frozen_linear.hpp"
#include "eyas/ops/rms_norm.hpp"
#include "eyas/ops/rotary.hpp"
#include "eyas/ops/rows.hpp"
#include "eyas/ops/swiglu.hpp"
#include "eyas/sample/vocab_map.hpp"

namespace eyas {

/// An EAGLE3 draft that decodes (arXiv 2503.01840), in fp32: row p of a sequence takes the target's
/// captured states of token p (or, further into a draft, its own last state) and token p + 1, and
/// proposes token p + 2. What TTT step k computes in training is row p + k here, a child of row p.
/// Rows of many sequences go through every product together. One thread drives it.
template <Device D>
class DraftDecoder {
public:
    /// `weights` under their training names (draft_tensors(), a checkpoint's or an export's),
    /// float32 or bfloat16, copied. `embedding` [V, D] of the target, of any float type, must
    /// outlive the decoder. Throws DataError for weights that are missing or have another shape
    /// than the config says.
    DraftDecoder(ModelConfig config, VocabMap map, std::span<const NamedTensor> weights,
                 TensorView embedding, D device = {})
        : device_(std::move(device)),
          config_(std::move(config)),
          map_(std::move(map)),
          shape_{config_.num_attention_heads, config_.num_key_value_heads, config_.head_dim},
          embedding_(embedding),
          rotary_(config_) {
        if (!(embedding.shape == Shape{config_.vocab_size, config_.hidden_size}))
            throw DataError("the embedding has shape " + embedding.shape.text(), "DraftDecoder",
                            "Take draft and target from the same model family");
        fit(embedded_, config_.hidden_size);
        const std::int64_t first = 0;  // refuses a type that cannot be read
        embed_rows(device_, embedding_, std::span(&first, 1), embedded_.data());
        if (map_.vocab_size() != config_.vocab_size ||
            map_.draft_vocab_size() != config_.draft_vocab_size)
            throw DataError("the vocabulary map is " + std::to_string(map_.vocab_size()) + " -> " +
                                std::to_string(map_.draft_vocab_size()),
                            "DraftDecoder",
                            "Its config says " + std::to_string(config_.vocab_size) + " -> " +
                                std::to_string(config_.draft_vocab_size));
        take(weights);
    }

    const ModelConfig& config() const { return config_; }
    const VocabMap& vocab_map() const { return map_; }
    /// Positions below this can be decoded.
    std::int64_t max_positions() const { return config_.max_position_embeddings; }

    /// For sequences of up to `max_tokens` tokens together.
    KvCache make_cache(std::int64_t max_tokens) const { return KvCache(1, shape_, max_tokens); }

    /// The captured states of n rows [n, 3Dt] brought to the draft's width [n, D].
    void project(const float* captured, std::int64_t n, float* hidden) {
        const auto dt = config_.target_hidden_size;
        const float* in = captured;
        if (config_.fc_norm) {
            fit(normed_, n * 3 * dt), fit(statistics_, n);
            for (std::int64_t i = 0; i < 3; ++i)
                norm(captured + i * dt, 3 * dt, fc_norm_[static_cast<std::size_t>(i)],
                     normed_.data() + i * dt, 3 * dt, n, dt);
            in = normed_.data();
        }
        fc_(device_, in, hidden, n, false);
    }

    /// States [N, D] of new rows from `hidden` [N, D] and token ids [N], the rows of all sequences
    /// behind one another; `out` may be `hidden`. Ids must lie in the vocabulary. Throws DataError
    /// for a position beyond the draft's, ResourceError when the cache is full.
    void forward(const float* hidden, std::span<const std::int64_t> ids,
                 std::span<const NewRows> sequences, KvCache& cache, float* out) {
        RowPlan plan(cache, sequences);
        const auto n = plan.rows(), d = config_.hidden_size, f = config_.intermediate_size;
        if (n == 0) return;
        turn(plan);
        fit(statistics_, n), fit(input_, n * 2 * d), fit(embedded_, n * d);
        fit(qkv_, n * shape_.qkv_width()), fit(context_, n * shape_.q_width());
        fit(gate_up_, n * 2 * f), fit(product_, n * f), fit(normed_, n * d);
        embed_rows(device_, embedding_, ids, embedded_.data());
        norm(embedded_.data(), d, input_norm_, input_.data(), 2 * d, n, d);
        norm(hidden, d, hidden_norm_, input_.data() + d, 2 * d, n, d);
        qkv_weight_(device_, input_.data(), qkv_.data(), n, false);
        rotary(device_, qkv_.data(), n, shape_.qkv_width(), shape_.heads + shape_.kv_heads,
               config_.head_dim, angles_, 1.f);
        plan.attend(device_, shape_, 0, qkv_.data(), context_.data());
        if (out != hidden) device_.copy(hidden, out, static_cast<std::size_t>(n * d) * sizeof *out);
        output_(device_, context_.data(), out, n, true);
        norm(out, d, post_norm_, normed_.data(), d, n, d);
        gate_up_weight_(device_, normed_.data(), gate_up_.data(), n, false);
        swiglu(device_, gate_up_.data(), product_.data(), n, f);
        down_(device_, product_.data(), out, n, true);
        plan.commit();
    }

    /// Logits [N, W] over the draft vocabulary of states [N, D] that forward() gave.
    void logits(const float* states, std::int64_t n, float* out) {
        const auto d = config_.hidden_size;
        if (config_.norm_output) {
            fit(normed_, n * d), fit(statistics_, n);
            norm(states, d, norm_, normed_.data(), d, n, d);
            states = normed_.data();
        }
        head_(device_, states, out, n, false);
    }

private:
    static void fit(std::vector<float>& v, std::int64_t n) {
        if (std::ssize(v) < n) v.resize(static_cast<std::size_t>(n));
    }
    void norm(const float* x, std::int64_t x_stride, const Tensor& weight, float* y,
              std::int64_t y_stride, std::int64_t rows, std::int64_t width) {
        rms_norm(device_, x, x_stride, weight.as<float>().data(), y, y_stride, statistics_.data(),
                 rows, width, static_cast<float>(config_.rms_norm_eps));
    }

    void turn(const RowPlan& plan) {
        const auto last = std::ranges::max(plan.positions());
        if (last >= max_positions())
            throw DataError("position " + std::to_string(last), "DraftDecoder",
                            "The draft knows " + std::to_string(max_positions()) + " positions");
        rotary_.reserve(last + 1);
        angles_ = RotaryRows(rotary_, plan.positions(), plan.rows(), config_.head_dim, 0);
    }

    /// The named matrices, of `width` columns, on top of one another; norms have one row.
    static Tensor stacked(std::span<const NamedTensor> weights, std::int64_t width,
                          const std::vector<std::pair<std::string, std::int64_t>>& parts) {
        std::int64_t rows = 0, at = 0;
        for (const auto& part : parts) rows += part.second;
        Tensor t(DType::F32, {rows, width});
        for (const auto& [name, n] : parts) {
            const auto from = std::ranges::find(weights, name, &NamedTensor::name);
            if (from == weights.end())
                throw DataError("no tensor '" + name + "'", "draft weights",
                                "Name an EAGLE3 draft's checkpoint or export");
            const auto& shape = from->tensor.shape;
            if (shape.elements() != n * width || shape[shape.rank() - 1] != width)
                throw DataError(
                    "shape " + shape.text() + ", but the config says " + Shape{n, width}.text(),
                    name, "Use the config.json that belongs to these weights");
            convert_into(from->tensor,
                         {t.mutable_view().data + static_cast<std::size_t>(at * width) * 4,
                          DType::F32, shape});
            at += n;
        }
        return t;
    }

    void take(std::span<const NamedTensor> weights) {
        const auto d = config_.hidden_size, f = config_.intermediate_size;
        const auto q = shape_.q_width(), kv = shape_.kv_width(), dt = config_.target_hidden_size;
        const std::string layer = "midlayer.";
        const auto matrix = [&](std::int64_t width,
                                const std::vector<std::pair<std::string, std::int64_t>>& parts) {
            return FrozenLinear<F32>(device_, stacked(weights, width, parts));
        };
        const auto vector = [&](const std::string& name, std::int64_t width) {
            return stacked(weights, width, {{name, 1}});
        };
        const std::string attention = layer + "self_attn.", mlp = layer + "mlp.";
        qkv_weight_ = matrix(2 * d, {{attention + "q_proj.weight", q},
                                     {attention + "k_proj.weight", kv},
                                     {attention + "v_proj.weight", kv}});
        output_ = matrix(q, {{attention + "o_proj.weight", d}});
        gate_up_weight_ = matrix(d, {{mlp + "gate_proj.weight", f}, {mlp + "up_proj.weight", f}});
        down_ = matrix(f, {{mlp + "down_proj.weight", d}});
        hidden_norm_ = vector(layer + "hidden_norm.weight", d);
        input_norm_ = vector(layer + "input_layernorm.weight", d);
        post_norm_ = vector(layer + "post_attention_layernorm.weight", d);
        fc_ = matrix(3 * dt, {{"fc.weight", d}});
        for (std::size_t i = 0; config_.fc_norm && i < 3; ++i)
            fc_norm_[i] = vector("fc_norm." + std::to_string(i) + ".weight", dt);
        norm_ = vector("norm.weight", d);
        head_ = matrix(d, {{"lm_head.weight", config_.draft_vocab_size}});
    }

    D device_;
    ModelConfig config_;
    VocabMap map_;
    HeadShape shape_;
    TensorView embedding_;
    FrozenLinear<F32> qkv_weight_, output_, gate_up_weight_, down_, fc_, head_;
    Tensor hidden_norm_, input_norm_, post_norm_, norm_;
    std::array<Tensor, 3> fc_norm_;
    RotaryTable rotary_;
    RotaryRows angles_;
    // Scratch; S = (H + 2G) E.
    std::vector<float> input_;       // [N, 2D]
    std::vector<float> embedded_;    // [N, D]
    std::vector<float> qkv_;         // [N, S]
    std::vector<float> context_;     // [N, H*E]
    std::vector<float> gate_up_;     // [N, 2F]
    std::vector<float> product_;     // [N, F]
    std::vector<float> normed_;      // [N, D], or [N, 3Dt]
    std::vector<float> statistics_;  // [N]
};

}  // namespace eyas
