#pragma once
#include <algorithm>
#include <array>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "eyas/core/arena.hpp"
#include "eyas/device/concept.hpp"
#include "eyas/device/precision.hpp"
#include "eyas/model/concept.hpp"
#include "eyas/model/decoder_step.hpp"
#include "eyas/model/distillation_heads.hpp"
#include "eyas/model/eagle3_batch.hpp"
#include "eyas/model/eagle3_options.hpp"
#include "eyas/model/eagle3_parameters.hpp"
#include "eyas/model/frozen_target.hpp"
#include "eyas/model/teacher_head.hpp"
#include "eyas/ops/rotary.hpp"

namespace eyas {

/// The EAGLE3 draft with its training-time-test unroll (arXiv 2503.01840), hand-written forward and
/// backward; the mathematics is SpecForge's (docs/numerics.md). Neither copied nor moved: parts
/// hold references into it. One thread drives it; the device may use many.
template <Device D, PrecisionPolicy P>
class Eagle3 {
public:
    using DeviceType = D;
    using PrecisionType = P;
    using Element = typename P::Element;

    /// Throws DataError when config, vocabulary map and target do not fit together. The embedding
    /// and the head are copied (in P's precision); `seed` draws the initial weights.
    Eagle3(ModelConfig config, Eagle3Options options, VocabMap map, const FrozenTarget& target,
           std::uint64_t seed, D device = D{})
        : device_(std::move(device)),
          config_(std::move(config)),
          options_(options),
          map_(std::move(map)),
          parameters_((check(target), config_), seed),
          embedding_(dtype_of<Element>, target.embed_tokens.shape),
          teacher_(target.lm_head, map_),
          rotary_(config_, 0, dtype_of<Element>),
          step_(device_, config_),
          heads_(device_, config_, options_, map_),
          activations_(static_cast<std::size_t>(options_.ttt_length)),
          angles_(activations_.size()),
          head_gradients_(activations_.size()) {
        convert_into(target.embed_tokens, embedding_.mutable_view());
    }
    Eagle3(const Eagle3&) = delete;
    Eagle3& operator=(const Eagle3&) = delete;

    /// Metrics are good until the next call.
    const StepMetrics& forward_backward(const Batch& batch, float scale) {
        return run(batch, scale, true);
    }
    const StepMetrics& evaluate(const Batch& batch) { return run(batch, 0.f, false); }

    /// Memory for batches of up to `rows` rows (B*T) at positions below `positions`: steps with
    /// them allocate nothing. A larger batch makes more room when it comes. Throws ResourceError.
    void reserve(std::int64_t rows, std::int64_t positions) {
        rotary_.reserve(positions + options_.ttt_length + 1);
        if (rows <= reserved_rows_) return;
        reserved_rows_ = 0;
        arena_.build([&](Arena& a) { lay_out(a, rows); });
        reserved_rows_ = rows;
    }

    /// Bytes that the model holds and, with batches of up to `rows` rows, will hold; nothing is
    /// allocated. The optimizer's are its own (AdamW::memory_plan).
    std::vector<ArenaPart> memory_plan(std::int64_t rows) {
        const auto bytes = [](const TensorView& t) { return std::uint64_t{t.size_bytes()}; };
        std::vector<ArenaPart> parts{
            {"frozen target: embedding", bytes(embedding_)},
            {"frozen target: head", teacher_.size_bytes()},
            {"draft parameters", static_cast<std::uint64_t>(parameters_.size()) * sizeof(Element)},
            {"draft gradients", static_cast<std::uint64_t>(parameters_.size()) * 4}};
        for (auto& p : Arena::plan([&](Arena& a) { lay_out(a, rows); }))
            parts.push_back(std::move(p));
        return parts;
    }

    const std::vector<Parameter>& parameters() { return parameters_.list(); }
    void zero_gradients() { parameters_.zero_gradients(); }
    const ModelConfig& config() const { return config_; }
    const Eagle3Options& options() const { return options_; }
    const VocabMap& vocab_map() const { return map_; }
    const D& device() const { return device_; }
    std::int64_t parameter_count() const { return parameters_.size(); }

private:
    void check(const FrozenTarget& t) const {
        const auto fit = [](const TensorView& v, const char* name, std::int64_t rows,
                            std::int64_t width) {
            if (!(v.shape == Shape{rows, width}))
                throw DataError(std::string(name) + " has shape " + v.shape.text() + ", expected " +
                                    Shape{rows, width}.text(),
                                "Eagle3",
                                "Take draft config and target from the same model family");
        };
        fit(t.embed_tokens, "target embed_tokens", config_.vocab_size, config_.hidden_size);
        fit(t.lm_head, "target lm_head", config_.vocab_size, config_.target_hidden_size);
        if (map_.vocab_size() != config_.vocab_size ||
            map_.draft_vocab_size() != config_.draft_vocab_size)
            throw DataError("the vocabulary map is " + std::to_string(map_.vocab_size()) + " -> " +
                                std::to_string(map_.draft_vocab_size()) + ", the draft config " +
                                std::to_string(config_.vocab_size) + " -> " +
                                std::to_string(config_.draft_vocab_size),
                            "Eagle3",
                            "Build the map with the config's vocab_size and draft_vocab_size");
        if (options_.ttt_length < 1 || options_.ttt_length > Eagle3Options::longest_ttt)
            throw ContractError("ttt_length is " + std::to_string(options_.ttt_length),
                                "Eagle3Options", "Use 1 to 16");
    }

    void lay_out(Arena& arena, std::int64_t rows) {
        const auto d = config_.hidden_size, dt = config_.target_hidden_size;
        constexpr const char* part = "projected states and rotation";
        batch_.lay_out(arena, config_, rows);
        arena.give(projected_, rows * d, part);
        for (auto& a : angles_) a.lay_out(arena, rows, config_.head_dim, part);
        if (config_.fc_norm)
            arena.give(normed_, rows * 3 * dt, part), arena.give(fc_rms_, rows * 3, part);
        if (!std::same_as<Element, float>) arena.give(scratch_, rows * std::max(d, 3 * dt), part);
        step_.lay_out(arena, activations_, rows);
        for (auto& g : head_gradients_) arena.give(g, rows * d, "gradients of the heads");
        heads_.lay_out(arena, teacher_, rows);
    }

    const StepMetrics& run(const Batch& batch, float scale, bool gradient) {
        Eagle3Batch<Element>::check(batch, config_);
        reserve(batch.batch_size() * batch.tokens(), batch.tokens());
        batch_.assign(batch);
        forward();
        const auto steps = activations_.size();
        std::array<const Element*, Eagle3Options::longest_ttt> hidden{};
        std::array<Element*, Eagle3Options::longest_ttt> dh{};
        for (std::size_t k = 0; k < steps; ++k) {
            hidden[k] = activations_[k].hidden.data();
            head_gradients_[k].resize(
                static_cast<std::size_t>(batch_.rows() * config_.hidden_size));
            dh[k] = head_gradients_[k].data();
        }
        const auto& metrics = heads_.run(parameters_, teacher_, batch_, {hidden.data(), steps},
                                         {dh.data(), gradient ? steps : 0}, scale);
        if (gradient) backward();
        return metrics;
    }

    void forward() {
        const auto n = batch_.rows(), d = config_.hidden_size, dt = config_.target_hidden_size;
        rotary_.reserve(batch_.last_position() + options_.ttt_length + 1);
        for (std::size_t k = 0; k < angles_.size(); ++k)
            angles_[k].assign(rotary_, {batch_.positions.data(), batch_.positions.size()}, n,
                              static_cast<std::int64_t>(k));
        projected_.resize(static_cast<std::size_t>(n * d));
        linear(device_, projection_input(), 3 * dt, parameters_.value(parameters_.fc),
               projected_.data(), d, n, 3 * dt, d, false, scratch_);
        for (std::int64_t k = 0; k < options_.ttt_length; ++k)
            step_.forward(parameters_, table(), batch_, input_of(k),
                          angles_[static_cast<std::size_t>(k)], activations_, k);
    }

    void backward() {
        const auto n = batch_.rows(), d = config_.hidden_size, dt = config_.target_hidden_size;
        step_.begin_backward(activations_, n);
        auto& dh = head_gradients_.back();
        for (std::int64_t k = options_.ttt_length - 1; k >= 0; --k) {
            step_.backward(parameters_, table(), batch_, input_of(k),
                           angles_[static_cast<std::size_t>(k)], activations_, k, dh.data());
            if (k == 0) break;
            const Element* head = head_gradients_[static_cast<std::size_t>(k - 1)].data();
            Element* to = dh.data();
            device_.for_each(n * d, [=](std::int64_t i) {
                to[i] = Element(static_cast<float>(to[i]) + static_cast<float>(head[i]));
            });
        }
        linear_backward_weight(device_, dh.data(), d, projection_input_data(), 3 * dt,
                               parameters_.grad(parameters_.fc), n, 3 * dt, d);
        if (config_.fc_norm) backward_fc_norm(dh.data());
    }

    /// The captured states, with fc_norm each third normalised by its own weight. [N, 3Dt]
    const Element* projection_input() {
        if (!config_.fc_norm) return projection_input_data();
        const auto n = batch_.rows(), dt = config_.target_hidden_size;
        const Element* in = batch_.hidden.data();
        normed_.resize(static_cast<std::size_t>(n * 3 * dt));
        fc_rms_.resize(static_cast<std::size_t>(3 * n));
        for (std::int64_t i = 0; i < 3; ++i)
            rms_norm(device_, in + i * dt, 3 * dt, parameters_.value(parameters_.fc_norm[i]),
                     normed_.data() + i * dt, 3 * dt, fc_rms_.data() + i * n, n, dt,
                     static_cast<float>(config_.rms_norm_eps));
        return normed_.data();
    }
    const Element* projection_input_data() const {
        return config_.fc_norm ? normed_.data() : batch_.hidden.data();
    }

    void backward_fc_norm(const Element* dh) {
        const auto n = batch_.rows(), d = config_.hidden_size, dt = config_.target_hidden_size;
        const Element* in = batch_.hidden.data();
        linear_backward_input(device_, dh, d, parameters_.value(parameters_.fc), normed_.data(),
                              3 * dt, n, 3 * dt, d, false, scratch_);
        for (std::int64_t i = 0; i < 3; ++i)
            rms_norm_backward(device_, in + i * dt, 3 * dt,
                              parameters_.value(parameters_.fc_norm[i]), normed_.data() + i * dt,
                              3 * dt, static_cast<Element*>(nullptr), dt, fc_rms_.data() + i * n,
                              parameters_.grad(parameters_.fc_norm[i]), n, dt);
    }

    const Element* table() const { return embedding_.template as<Element>().data(); }
    const Element* input_of(std::int64_t k) const {
        return k == 0 ? projected_.data()
                      : activations_[static_cast<std::size_t>(k - 1)].hidden.data();
    }

    D device_;
    ModelConfig config_;
    Eagle3Options options_;
    VocabMap map_;
    Eagle3Parameters<Element> parameters_;
    Tensor embedding_;  // [V, D]
    TeacherHead<Element> teacher_;
    RotaryTable rotary_;
    DecoderStep<D, Element> step_;
    DistillationHeads<D, Element> heads_;

    Arena arena_;
    std::int64_t reserved_rows_ = 0;
    Eagle3Batch<Element> batch_;
    std::vector<StepActivations<Element>> activations_;  // K
    std::vector<RotaryRows> angles_;                     // K
    std::vector<ArenaArray<Element>> head_gradients_;    // K of [N, D]
    ArenaArray<Element> projected_, normed_;             // [N, D], [N, 3Dt]
    ArenaArray<float> fc_rms_;                           // [3, N]
    RoundingScratch scratch_;
};

}  // namespace eyas
