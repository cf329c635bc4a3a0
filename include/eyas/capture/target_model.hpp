#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eyas/capture/target_weights.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/device/concept.hpp"
#include "eyas/ops/attention.hpp"
#include "eyas/ops/embedding.hpp"
#include "eyas/ops/linear.hpp"
#include "eyas/ops/rms_norm.hpp"
#include "eyas/ops/rotary.hpp"
#include "eyas/ops/swiglu.hpp"

namespace eyas {

/// The layers whose states EAGLE3 reads where nobody says otherwise: low, middle and high, counted
/// from 0, [1, N/2 - 1, N - 4]. Source: SpecForge. Throws ContractError below 5 layers.
inline std::vector<std::int64_t> default_capture_layers(std::int64_t layers) {
    if (layers < 5)
        throw ContractError("a model of " + std::to_string(layers) + " layers has no default",
                            "capture layers", "Name the layers to capture");
    return {1, layers / 2 - 1, layers - 4};
}

struct TargetOptions {
    std::vector<std::int64_t> layers;  // L captured layers; empty: default_capture_layers
};

/// What a forward over N packed tokens yields.
struct TargetStates {
    Tensor captured;  // [N, L*D] fp32: residual streams after the captured layers, before any norm
    Tensor last;      // [N, D] fp32: the final state after the model's norm, input of the head
};

/// A frozen target (load_target_weights) in fp32 on any device: computes hidden states, keeps
/// nothing between calls. Sequences are packed one after another, so that every matrix product runs
/// over all of their tokens; attention sees one sequence at a time, positions start at 0 in each,
/// nothing is padded. Weights live as long as the model. One thread drives a model; it may use many
/// inside. Two models share nothing. A forward that throws leaves the model as it was.
template <Device D>
class TargetModel {
public:
    /// Widens the weights; `from` is not needed afterwards. Throws what load_target_weights throws,
    /// ContractError for a captured layer that does not exist.
    explicit TargetModel(const HfWeights& from, TargetOptions options = {}, D device = {})
        : device_(std::move(device)),
          config_(from.config()),
          layers_(options.layers.empty() ? default_capture_layers(config_.num_hidden_layers)
                                         : std::move(options.layers)),
          weights_(load_target_weights(from)),
          rotary_(config_) {
        for (auto l : layers_)
            if (l < 0 || l >= config_.num_hidden_layers)
                throw ContractError(
                    "the model has no layer " + std::to_string(l), "capture layers",
                    "Name layers from 0 to " + std::to_string(config_.num_hidden_layers - 1));
    }

    const ModelConfig& config() const { return config_; }
    std::span<const std::int64_t> captured_layers() const { return layers_; }
    /// Equal for equal configs and weights. Reads all of the weights.
    std::string fingerprint() const { return eyas::fingerprint(weights_, config_); }

    /// Hidden states of packed sequences: `ids` [N] all tokens, `lengths` their split, which must
    /// add up to N. Throws ContractError for lengths that do not, DataError for an id outside the
    /// vocabulary or a sequence longer than the model's positions or attention window.
    TargetStates forward(std::span<const std::int64_t> ids, std::span<const std::int64_t> lengths) {
        check_input(ids, lengths);
        const auto rows = static_cast<std::int64_t>(ids.size()), width = config_.hidden_size;
        const auto count = static_cast<std::int64_t>(layers_.size());
        TargetStates out{Tensor(DType::F32, {rows, count * width}),
                         Tensor(DType::F32, {rows, width})};
        if (rows == 0) return out;
        Activations a = begin(ids, lengths);
        for (std::int64_t l = 0; l < config_.num_hidden_layers; ++l) {
            run_layer(weights_.layers[static_cast<std::size_t>(l)], a);
            for (std::int64_t c = 0; c < count; ++c)
                if (layers_[static_cast<std::size_t>(c)] == l)
                    copy_columns(data(a.hidden), data(out.captured) + c * width, rows,
                                 count * width);
        }
        norm(data(a.hidden), weights_.final_norm, data(out.last), a);
        return out;
    }

    /// One sequence.
    TargetStates forward(std::span<const std::int64_t> ids) {
        const std::int64_t length = static_cast<std::int64_t>(ids.size());
        return forward(ids, std::span(&length, 1));
    }

    /// The head on normed final states: [N, D] fp32 -> [N, V] fp32. Meant for few rows (checks,
    /// decoding); throws ContractError for states of another width.
    Tensor logits(const TensorView& states) const {
        if (states.shape.rank() != 2 || states.shape[1] != config_.hidden_size)
            throw ContractError("states of shape " + states.shape.text(), "TargetModel::logits",
                                "Pass [N, " + std::to_string(config_.hidden_size) + "]");
        const auto rows = states.shape[0], width = config_.hidden_size;
        Tensor out(DType::F32, {rows, config_.vocab_size});
        const auto& head = weights_.head.empty() ? weights_.embedding : weights_.head;
        RoundingScratch unused;
        linear(device_, states.as<float>().data(), width, data(head), data(out), config_.vocab_size,
               rows, width, config_.vocab_size, false, unused);
        return out;
    }

private:
    // What one forward works in; S = (H + 2G) E is the width of a fused q, k, v row.
    struct Activations {
        std::span<const std::int64_t> lengths;
        std::int64_t rows;
        RotaryRows angles;
        std::vector<std::int64_t> mask;  // ones: nothing is padded
        Tensor hidden;                   // [N, D] residual stream
        Tensor normed;                   // [N, D]
        Tensor qkv;                      // [N, S]
        Tensor context;                  // [N, H*E]
        Tensor gate_up;                  // [N, 2F]
        Tensor product;                  // [N, F]
        std::vector<float> statistics;   // [max(N, H*T)]: per-row sums that only a backward needs
        RoundingScratch unused;
    };

    static const float* data(const Tensor& t) { return t.as<float>().data(); }
    static float* data(Tensor& t) { return t.as<float>().data(); }
    std::int64_t query_width() const { return config_.num_attention_heads * config_.head_dim; }
    std::int64_t qkv_width() const {
        return query_width() + 2 * config_.num_key_value_heads * config_.head_dim;
    }

    void check_input(std::span<const std::int64_t> ids,
                     std::span<const std::int64_t> lengths) const {
        std::int64_t total = 0;
        for (auto n : lengths) {
            if (n < 1 || n > static_cast<std::int64_t>(ids.size()) - total)
                throw ContractError("lengths do not add up to the number of tokens",
                                    "TargetModel::forward", "Give one length per sequence");
            check_sequence_length(config_, n);
            total += n;
        }
        if (total != static_cast<std::int64_t>(ids.size()))
            throw ContractError("lengths do not add up to the number of tokens",
                                "TargetModel::forward", "Give one length per sequence");
        for (auto id : ids)
            if (id < 0 || id >= config_.vocab_size)
                throw DataError("token id " + std::to_string(id), "input_ids",
                                "Use the tokenizer of this model; its ids are below " +
                                    std::to_string(config_.vocab_size));
    }

    Activations begin(std::span<const std::int64_t> ids, std::span<const std::int64_t> lengths) {
        const auto rows = static_cast<std::int64_t>(ids.size()), ff = config_.intermediate_size;
        std::vector<std::int64_t> positions;
        positions.reserve(ids.size());
        for (auto n : lengths)
            for (std::int64_t t = 0; t < n; ++t) positions.push_back(t);
        const auto longest = std::ranges::max(lengths);
        rotary_.reserve(longest);
        const auto statistics = std::max(rows, config_.num_attention_heads * longest);
        const auto matrix = [&](std::int64_t width) { return Tensor(DType::F32, {rows, width}); };
        Activations a{lengths,
                      rows,
                      RotaryRows(rotary_, positions, rows, config_.head_dim, 0),
                      std::vector<std::int64_t>(static_cast<std::size_t>(longest), 1),
                      matrix(config_.hidden_size),
                      matrix(config_.hidden_size),
                      matrix(qkv_width()),
                      matrix(query_width()),
                      matrix(2 * ff),
                      matrix(ff),
                      std::vector<float>(static_cast<std::size_t>(statistics)),
                      {}};
        embedding(device_, data(weights_.embedding), ids.data(), data(a.hidden), rows,
                  config_.hidden_size);
        return a;
    }

    // hidden += output(attention(heads(qkv(norm(hidden))))), heads() being the norms and rotation
    // of q and k; hidden += down(swiglu(gate_up(norm(hidden))))
    void run_layer(const TargetLayer& w, Activations& a) const {
        norm(data(a.hidden), w.input_norm, data(a.normed), a);
        multiply(a.normed, w.qkv, w.qkv_bias, a.qkv, false, a);
        norm_heads(w, a);
        rotary(device_, data(a.qkv), a.rows, qkv_width(),
               config_.num_attention_heads + config_.num_key_value_heads, config_.head_dim,
               a.angles, 1.f);
        attend(a);
        multiply(a.context, w.output, w.output_bias, a.hidden, true, a);
        norm(data(a.hidden), w.post_norm, data(a.normed), a);
        multiply(a.normed, w.gate_up, w.gate_up_bias, a.gate_up, false, a);
        swiglu(device_, data(a.gate_up), data(a.product), a.rows, config_.intermediate_size);
        multiply(a.product, w.down, w.down_bias, a.hidden, true, a);
    }

    void attend(Activations& a) const {
        const auto stride = qkv_width();
        std::int64_t row = 0;
        for (auto tokens : a.lengths) {
            const float* q = data(a.qkv) + row * stride;
            const float* k = q + query_width();
            const float* v = k + config_.num_key_value_heads * config_.head_dim;
            const TttAttention<float> causal{1,
                                             tokens,
                                             config_.num_attention_heads,
                                             config_.num_key_value_heads,
                                             config_.head_dim,
                                             0,
                                             a.mask.data(),
                                             q,
                                             stride,
                                             &k,
                                             &v,
                                             stride};
            ttt_attention(device_, causal, data(a.context) + row * query_width(), query_width(),
                          a.statistics.data());
            row += tokens;
        }
    }

    void norm(const float* x, const Tensor& weight, float* y, Activations& a) const {
        const auto width = config_.hidden_size;
        rms_norm(device_, x, width, data(weight), y, width, a.statistics.data(), a.rows, width,
                 static_cast<float>(config_.rms_norm_eps));
    }

    // Each head of q and of k by itself, in place.
    void norm_heads(const TargetLayer& w, Activations& a) const {
        if (w.q_norm.empty()) return;
        const auto heads = config_.num_attention_heads, width = config_.head_dim;
        for (std::int64_t h = 0; h < heads + config_.num_key_value_heads; ++h) {
            float* x = data(a.qkv) + h * width;
            rms_norm(device_, x, qkv_width(), data(h < heads ? w.q_norm : w.k_norm), x, qkv_width(),
                     a.statistics.data(), a.rows, width, static_cast<float>(config_.rms_norm_eps));
        }
    }

    // y = x W^T + bias, or y += x W^T + bias
    void multiply(const Tensor& x, const Tensor& weight, const Tensor& bias, Tensor& y, bool add,
                  Activations& a) const {
        const auto out = weight.shape()[0], in = weight.shape()[1];
        linear(device_, data(x), in, data(weight), data(y), out, a.rows, in, out, add, a.unused);
        if (bias.empty()) return;
        float* to = data(y);
        const float* from = data(bias);
        device_.for_each_row(a.rows, [=](std::int64_t r) {
            for (std::int64_t j = 0; j < out; ++j) to[r * out + j] += from[j];
        });
    }

    void copy_columns(const float* from, float* to, std::int64_t rows, std::int64_t stride) const {
        const auto width = config_.hidden_size;
        device_.for_each_row(
            rows, [=](std::int64_t r) { std::copy_n(from + r * width, width, to + r * stride); });
    }

    D device_;
    ModelConfig config_;
    std::vector<std::int64_t> layers_;
    TargetWeights weights_;
    RotaryTable rotary_;
};

}  // namespace eyas
