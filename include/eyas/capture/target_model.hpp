#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eyas/capture/kv_cache.hpp"
#include "eyas/capture/row_plan.hpp"
#include "eyas/capture/target_weights.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/device/concept.hpp"
#include "eyas/device/precision.hpp"
#include "eyas/ops/embedding.hpp"
#include "eyas/ops/frozen_linear.hpp"
#include "eyas/ops/rms_norm.hpp"
#include "eyas/ops/rotary.hpp"
#include "eyas/ops/rows.hpp"
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
    std::vector<std::int64_t> layers = {};  // L captured layers; empty: default_capture_layers
    bool narrow = true;  // under F32: hold weights in bfloat16 where that is exact: half the
                         // memory, faster decoding of few sequences, slower forwards of whole texts
};

/// What a forward over N packed tokens yields.
struct TargetStates {
    Tensor captured;  // [N, L*D] fp32: residual streams after the captured layers, before any norm
    Tensor last;      // [N, D] fp32: the final state after the model's norm, input of the head
};

/// A frozen model of the Llama family: computes hidden states and logits, of whole sequences or of
/// new tokens behind what a KvCache holds. Rows of all sequences go through every matrix product
/// together; nothing is padded.
///
/// Under F32 it computes as its weights say. Under Bf16 weights of matrices and what they multiply
/// are rounded to bfloat16, which processors with AVX-512 BF16 multiply twice as fast; sums, the
/// residual stream, norms, attention and the KV cache are fp32 under both.
///
/// Where the device packs weights of these sizes (row_invariant()), a row's bits depend on its own
/// tokens alone: not on other sequences of the forward, nor on how a sequence was cut into
/// forwards. So hidden states captured while decoding are those of one forward over the whole text,
/// and verifying a draft is lossless to the bit.
///
/// Weights live as long as the model. The device's memory must be the host's. One thread drives a
/// model; it may use many inside. Two models share nothing.
template <Device D, PrecisionPolicy P = F32>
class TargetModel {
public:
    using PrecisionType = P;

    /// Takes the weights; `from` is not needed afterwards. Throws what load_target_weights throws,
    /// ContractError for a captured layer that does not exist.
    explicit TargetModel(const HfWeights& from, TargetOptions options = {}, D device = {})
        : device_(std::move(device)),
          config_(from.config()),
          shape_{config_.num_attention_heads, config_.num_key_value_heads, config_.head_dim},
          layers_(options.layers.empty() ? default_capture_layers(config_.num_hidden_layers)
                                         : std::move(options.layers)),
          narrow_(options.narrow),
          rotary_(config_),
          scratch_(1, shape_, std::numeric_limits<std::int32_t>::max()) {
        for (auto l : layers_)
            if (l < 0 || l >= config_.num_hidden_layers)
                throw ContractError(
                    "the model has no layer " + std::to_string(l), "capture layers",
                    "Name layers from 0 to " + std::to_string(config_.num_hidden_layers - 1));
        take(load_target_weights(from));
    }

    const ModelConfig& config() const { return config_; }
    const D& device() const { return device_; }
    std::span<const std::int64_t> captured_layers() const { return layers_; }
    /// Equal for equal configs and weights.
    const std::string& fingerprint() const { return fingerprint_; }
    /// Of all tokens. [V, D], bfloat16 where that is exact
    TensorView embedding() const { return embedding_.view(); }
    /// Whether a row's bits depend on its own sequence alone.
    bool row_invariant() const { return row_invariant_; }

    /// For sequences of up to `max_tokens` tokens together.
    KvCache make_cache(std::int64_t max_tokens) const {
        return KvCache(config_.num_hidden_layers, shape_, max_tokens);
    }

    /// Hidden states of new rows: `ids` [N], the rows of all sequences behind one another. Keys and
    /// values go to the cache. Throws ContractError for numbers of rows that do not add up to N,
    /// DataError for an id outside the vocabulary or a position beyond the model's positions or
    /// attention window, ResourceError when the cache is full; no sequence is longer then.
    TargetStates forward(std::span<const std::int64_t> ids, std::span<const NewRows> sequences,
                         KvCache& cache) {
        std::int64_t rows = 0;
        for (const auto& s : sequences) rows += s.rows;
        check_rows(rows, ids);
        check_ids(ids);
        RowPlan plan(cache, sequences);
        auto out = run(ids, plan, true);
        plan.commit();
        return out;
    }

    /// Hidden states of whole sequences: `ids` [N] all tokens, `lengths` their split, which must
    /// add up to N. Nothing is kept. Throws ContractError for lengths that do not, DataError for an
    /// id outside the vocabulary or a sequence longer than the model's positions or attention
    /// window.
    TargetStates forward(std::span<const std::int64_t> ids, std::span<const std::int64_t> lengths) {
        std::int64_t rows = 0;
        for (auto n : lengths) rows += n < 1 ? std::ssize(ids) + 1 : n;
        check_rows(rows, ids);
        check_ids(ids);
        std::vector<KvCache::Sequence> sequences(lengths.size());
        std::vector<NewRows> all;
        for (std::size_t i = 0; i < lengths.size(); ++i) all.push_back({&sequences[i], lengths[i]});
        struct Release {  // also when something throws
            TargetModel& model;
            std::vector<KvCache::Sequence>& sequences;
            ~Release() {
                for (auto& s : sequences) model.scratch_.release(s);
            }
        } release{*this, sequences};
        RowPlan plan(scratch_, all);
        return run(ids, plan, false);
    }

    /// One sequence.
    TargetStates forward(std::span<const std::int64_t> ids) {
        const std::int64_t length = std::ssize(ids);
        return forward(ids, std::span(&length, 1));
    }

    /// The head on normed final states: [N, D] fp32 -> [N, V] fp32. Throws ContractError for states
    /// of another width.
    Tensor logits(const TensorView& states) const {
        if (states.shape.rank() != 2 || states.shape[1] != config_.hidden_size)
            throw ContractError("states of shape " + states.shape.text(), "TargetModel::logits",
                                "Pass [N, " + std::to_string(config_.hidden_size) + "]");
        Tensor out(DType::F32, {states.shape[0], config_.vocab_size});
        head_(device_, states.as<float>().data(), data(out), states.shape[0], false);
        return out;
    }

private:
    struct Layer {
        Tensor input_norm, post_norm, q_norm, k_norm;
        FrozenLinear<P> qkv, output, gate_up, down;
    };

    // What a forward works in; kept, so that decoding allocates nothing large. S = (H + 2G) E.
    struct Activations {
        std::vector<float> hidden;      // [N, D] residual stream
        std::vector<float> normed;      // [N, D]
        std::vector<float> qkv;         // [N, S]
        std::vector<float> context;     // [N, H*E]
        std::vector<float> gate_up;     // [N, 2F]
        std::vector<float> product;     // [N, F]
        std::vector<float> statistics;  // [N]: per-row sums that only a backward needs
    };

    static const float* data(const Tensor& t) { return t.as<float>().data(); }
    static float* data(Tensor& t) { return t.as<float>().data(); }

    /// The weights in the form that products want; what they were made from goes layer by layer.
    void take(TargetWeights w) {
        fingerprint_ = eyas::fingerprint(w, config_);
        const auto frozen = [this](Tensor& weight, Tensor bias = {}) {
            FrozenLinear<P> l(device_, std::move(weight), std::move(bias), narrow_);
            row_invariant_ = row_invariant_ && l.row_invariant();
            return l;
        };
        for (auto& l : w.layers)
            weights_.push_back({std::move(l.input_norm), std::move(l.post_norm),
                                std::move(l.q_norm), std::move(l.k_norm),
                                frozen(l.qkv, std::move(l.qkv_bias)),
                                frozen(l.output, std::move(l.output_bias)),
                                frozen(l.gate_up, std::move(l.gate_up_bias)),
                                frozen(l.down, std::move(l.down_bias))});
        Tensor head = w.head.empty() ? Tensor::copy_of(w.embedding.view()) : std::move(w.head);
        head_ = frozen(head);
        embedding_ = narrowed_where_exact(std::move(w.embedding));
        final_norm_ = std::move(w.final_norm);
    }

    void check_rows(std::int64_t rows, std::span<const std::int64_t> ids) const {
        if (rows != std::ssize(ids))
            throw ContractError("lengths do not add up to the number of tokens",
                                "TargetModel::forward", "Give one length per sequence");
    }
    void check_ids(std::span<const std::int64_t> ids) const {
        for (auto id : ids)
            if (id < 0 || id >= config_.vocab_size)
                throw DataError("token id " + std::to_string(id), "input_ids",
                                "Use the tokenizer of this model; its ids are below " +
                                    std::to_string(config_.vocab_size));
    }

    /// `layered`: the cache has a place for each layer; else one, used again.
    TargetStates run(std::span<const std::int64_t> ids, RowPlan& plan, bool layered) {
        const auto rows = plan.rows(), width = config_.hidden_size;
        const auto count = std::ssize(layers_);
        TargetStates out{Tensor(DType::F32, {rows, count * width}),
                         Tensor(DType::F32, {rows, width})};
        if (rows == 0) return out;
        begin(ids, plan);
        for (std::int64_t l = 0; l < config_.num_hidden_layers; ++l) {
            run_layer(weights_[static_cast<std::size_t>(l)], plan, layered ? l : 0);
            for (std::int64_t c = 0; c < count; ++c)
                if (layers_[static_cast<std::size_t>(c)] == l)
                    copy_columns(device_, a_.hidden.data(), width, data(out.captured) + c * width,
                                 count * width, rows, width);
        }
        norm(a_.hidden.data(), final_norm_, data(out.last), rows);
        return out;
    }

    void begin(std::span<const std::int64_t> ids, const RowPlan& plan) {
        const auto rows = plan.rows();
        const auto last = std::ranges::max(plan.positions());
        check_sequence_length(config_, last + 1);
        rotary_.reserve(last + 1);
        angles_ = RotaryRows(rotary_, plan.positions(), rows, config_.head_dim, 0);
        const auto resize = [rows](std::vector<float>& v, std::int64_t width) {
            v.resize(static_cast<std::size_t>(rows * width));
        };
        resize(a_.hidden, config_.hidden_size), resize(a_.normed, config_.hidden_size);
        resize(a_.qkv, shape_.qkv_width()), resize(a_.context, shape_.q_width());
        resize(a_.gate_up, 2 * config_.intermediate_size);
        resize(a_.product, config_.intermediate_size), resize(a_.statistics, 1);
        embed_rows(device_, embedding_.view(), ids, a_.hidden.data());
    }

    // hidden += output(attention(norm(hidden))); hidden += down(swiglu(gate_up(norm(hidden))))
    void run_layer(const Layer& w, RowPlan& plan, std::int64_t slot) {
        const auto rows = plan.rows();
        norm(a_.hidden.data(), w.input_norm, a_.normed.data(), rows);
        w.qkv(device_, a_.normed.data(), a_.qkv.data(), rows, false);
        norm_heads(w.q_norm, 0, shape_.heads, rows);
        norm_heads(w.k_norm, shape_.heads, shape_.kv_heads, rows);
        rotary(device_, a_.qkv.data(), rows, shape_.qkv_width(), shape_.heads + shape_.kv_heads,
               config_.head_dim, angles_, 1.f);
        plan.attend(device_, shape_, slot, a_.qkv.data(), a_.context.data());
        w.output(device_, a_.context.data(), a_.hidden.data(), rows, true);
        norm(a_.hidden.data(), w.post_norm, a_.normed.data(), rows);
        w.gate_up(device_, a_.normed.data(), a_.gate_up.data(), rows, false);
        swiglu(device_, a_.gate_up.data(), a_.product.data(), rows, config_.intermediate_size);
        w.down(device_, a_.product.data(), a_.hidden.data(), rows, true);
    }

    void norm(const float* x, const Tensor& weight, float* y, std::int64_t rows) {
        const auto width = config_.hidden_size;
        rms_norm(device_, x, width, data(weight), y, width, a_.statistics.data(), rows, width,
                 static_cast<float>(config_.rms_norm_eps));
    }
    /// Each of some heads of qkv by itself, in place; nothing where the model has no such norm.
    void norm_heads(const Tensor& weight, std::int64_t first, std::int64_t heads,
                    std::int64_t rows) {
        if (weight.empty()) return;
        for (auto h = first; h < first + heads; ++h) {
            float* x = a_.qkv.data() + h * config_.head_dim;
            rms_norm(device_, x, shape_.qkv_width(), data(weight), x, shape_.qkv_width(),
                     a_.statistics.data(), rows, config_.head_dim,
                     static_cast<float>(config_.rms_norm_eps));
        }
    }

    D device_;
    ModelConfig config_;
    HeadShape shape_;
    std::vector<std::int64_t> layers_;
    std::vector<Layer> weights_;
    Tensor embedding_, final_norm_;  // [V, D], [D]
    FrozenLinear<P> head_;
    std::string fingerprint_;
    bool row_invariant_ = true, narrow_;
    RotaryTable rotary_;
    RotaryRows angles_;
    KvCache scratch_;  // one layer's, of whole sequences
    Activations a_;
};

}  // namespace eyas
