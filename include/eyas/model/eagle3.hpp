#pragma once
#include <algorithm>
#include <array>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/arena.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/device/concept.hpp"
#include "eyas/device/precision.hpp"
#include "eyas/model/concept.hpp"
#include "eyas/model/eagle3_options.hpp"
#include "eyas/model/eagle3_parameters.hpp"
#include "eyas/model/eagle3_workspace.hpp"
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
          parameters_((check(target), device_), config_, seed, options_.packed_weights),
          embedding_(in_precision(target.embed_tokens)),
          teacher_(device_, target.lm_head, map_, options_.packed_weights),
          rotary_(config_, 0, dtype_of<Element>),
          work_(device_, config_, options_, map_) {}
    Eagle3(const Eagle3&) = delete;
    Eagle3& operator=(const Eagle3&) = delete;

    /// Metrics are good until the next call. Most gradients are final only in the backward of TTT
    /// step 0, the last: those of the heads before, then down, gate and up, their norm, o, q, k, v,
    /// the two norms of the input, fc and its norms.
    const StepMetrics& forward_backward(const Batch& batch, float scale,
                                        const GradientIsFinal& on_final = {}) {
        const FinalSlots is_final(on_final);
        return run(batch, scale, &is_final);
    }
    const StepMetrics& evaluate(const Batch& batch) { return run(batch, 0.f, nullptr); }

    /// The batch that comes after the next one, or nullptr; its data stay until it has come, or
    /// this is called again. A device with memory of its own takes its states along while it
    /// computes gradients.
    void ahead(const Batch* next) { next_ = next; }

    /// The draft's logits [K, B*T, W] of every row and TTT step, float32 in the host's memory: what
    /// the loss compares, at all rows. Meant for few rows (checks, decoding).
    Tensor logits(const Batch& batch) {
        prepare(batch);
        const auto n = work_.batch.rows(), d = config_.hidden_size, w = config_.draft_vocab_size,
                   steps = options_.ttt_length;
        Tensor out = zeros_on(device_, DType::F32, {steps, n, w}),
               normed = zeros_on(device_, dtype_of<Element>, {n, d}),
               inverse_rms = zeros_on(device_, DType::F32, {n});
        for (std::int64_t k = 0; k < steps; ++k) {
            const Element* hidden = work_.activations[static_cast<std::size_t>(k)].hidden.data();
            if (config_.norm_output) {
                rms_norm(device_, hidden, d, parameters_.value(parameters_.norm),
                         normed.as<Element>().data(), d, inverse_rms.as<float>().data(), n, d,
                         static_cast<float>(config_.rms_norm_eps));
                hidden = normed.as<Element>().data();
            }
            linear_unrounded(device_, hidden, parameters_.weight(parameters_.lm_head),
                             out.as<float>().data() + k * n * w, n);
        }
        return device_.memory() ? on_host(device_, out.view()) : std::move(out);
    }

    /// Memory for batches of up to `rows` rows (B*T) at positions below `positions`: steps with
    /// them allocate nothing. A larger batch makes more room when it comes. Throws ResourceError.
    void reserve(std::int64_t rows, std::int64_t positions) {
        rotary_.reserve(positions + options_.ttt_length + 1);
        if (rows <= reserved_rows_) return;
        reserved_rows_ = 0;
        work_.replays.forget();
        arena_.build([&](Arena& a) { work_.lay_out(a, rows); }, device_.memory());
        reserved_rows_ = rows;
    }

    /// Bytes by part that a model of this kind will hold, with batches of up to `rows` rows (B*T),
    /// before there is one. Throws what the constructor throws of options.
    static std::vector<ArenaPart> memory_plan(const ModelConfig& config,
                                              const Eagle3Options& options, std::int64_t rows,
                                              const D& device = D{}) {
        const auto size = [](std::int64_t elements, std::size_t each) {
            return static_cast<std::uint64_t>(elements) * each;
        };
        const auto count = parameter_count(config);
        const auto head = config.vocab_size * config.target_hidden_size;
        std::vector<ArenaPart> parts{
            {"target: embedding", size(config.vocab_size * config.hidden_size, sizeof(Element))},
            {"target: head", size(head, sizeof(Element)) + size(config.vocab_size, 8)},
            {"draft: parameters", size(count, sizeof(Element))},
            {"draft: gradients", size(count, sizeof(float))}};
        if (options.packed_weights && PackingDevice<D>)
            parts.push_back(
                {"draft: packed weights",
                 size(Eagle3Parameters<Element>::packed_count(device, config), sizeof(float))});
        const VocabMap none;
        Eagle3Workspace<D, Element> work(device, config, options, none);
        auto of_step = Arena::plan([&](Arena& a) { work.lay_out(a, rows); });
        work.plan_scratch(of_step, device, rows);
        for (const auto& p : of_step) parts.push_back({"step: " + p.name, p.bytes});
        return parts;
    }

    const std::vector<Parameter>& parameters() { return parameters_.list(); }
    void zero_gradients() { parameters_.zero_gradients(device_); }
    const ModelConfig& config() const { return config_; }
    const Eagle3Options& options() const { return options_; }
    const VocabMap& vocab_map() const { return map_; }
    const D& device() const { return device_; }
    std::int64_t parameter_count() const { return parameters_.size(); }
    static std::int64_t parameter_count(const ModelConfig& config) {
        return Eagle3Parameters<Element>::count(config);
    }

private:
    Tensor in_precision(const TensorView& v) const {
        Tensor t(dtype_of<Element>, v.shape);
        convert_into(v, t.mutable_view());
        return on_device(device_, std::move(t));
    }

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

    /// The hidden states of all TTT steps.
    void prepare(const Batch& batch, bool trains = false) {
        next_ = nullptr;
        Eagle3Batch<Element>::check(batch, config_);
        reserve(batch.batch_size() * batch.tokens(), batch.tokens());
        work_.batch.assign(device_, batch);
        parameters_.pack(device_);
        forward(trains);
    }

    /// With gradients where `is_final` wants to hear of them.
    const StepMetrics& run(const Batch& batch, float scale, const FinalSlots* is_final) {
        const Batch* next = std::exchange(next_, nullptr);
        prepare(batch, is_final != nullptr);
        if (next && is_final && work_.own_memory) work_.batch.ahead.take(device_, *next, config_);
        const auto steps = work_.activations.size();
        std::array<const Element*, Eagle3Options::longest_ttt> hidden{};
        std::array<Element*, Eagle3Options::longest_ttt> dh{};
        for (std::size_t k = 0; k < steps; ++k) {
            hidden[k] = work_.activations[k].hidden.data();
            work_.head_gradients[k].resize(
                static_cast<std::size_t>(work_.batch.rows() * config_.hidden_size));
            dh[k] = work_.head_gradients[k].data();
        }
        const auto& metrics =
            work_.heads.run(parameters_, teacher_, work_.batch, {hidden.data(), steps},
                            {dh.data(), is_final ? steps : 0}, scale);
        if (is_final) backward(*is_final);
        return metrics;
    }

    void forward(bool trains) {
        const auto n = work_.batch.rows(), d = config_.hidden_size;
        rotary_.reserve(work_.batch.last_position() + options_.ttt_length + 1);
        for (std::size_t k = 0; k < work_.angles.size(); ++k)
            assign_rotation(device_, work_.angles[k], rotary_,
                            {work_.batch.host_positions.data(), work_.batch.host_positions.size()},
                            work_.batch.positions.data(), n, static_cast<std::int64_t>(k));
        work_.replayed(
            device_, StepPart::Forward, [&] { unroll(n, d); }, trains);
    }
    void unroll(std::int64_t n, std::int64_t d) {
        work_.projected.resize(static_cast<std::size_t>(n * d));
        linear(device_, projection_input(), parameters_.weight(parameters_.fc),
               work_.projected.data(), n, false, work_.scratch);
        for (std::int64_t k = 0; k < options_.ttt_length; ++k)
            work_.step.forward(parameters_, table(), work_.batch, input_of(k),
                               work_.angles[static_cast<std::size_t>(k)], work_.activations, k);
    }

    void backward(const FinalSlots& is_final) {
        is_final(parameters_.lm_head), is_final(parameters_.norm);
        const auto n = work_.batch.rows(), d = config_.hidden_size, dt = config_.target_hidden_size;
        auto& dh = work_.head_gradients.back();
        work_.replayed(device_, StepPart::Backward, [&] {
            work_.step.begin_backward(work_.activations, n);
            for (std::int64_t k = options_.ttt_length - 1; k > 0; --k) {
                backward_step(k, dh.data(), FinalSlots());
                const auto& head = work_.head_gradients[static_cast<std::size_t>(k - 1)];
                add(device_, dh.data(), head.data(), n * d);
            }
        });
        backward_step(0, dh.data(), is_final);  // here gradients are final: not replayed
        linear_backward_weight(device_, dh.data(), d, projection_input_data(), 3 * dt,
                               parameters_.grad(parameters_.fc), n, 3 * dt, d);
        is_final(parameters_.fc);
        if (config_.fc_norm) backward_fc_norm(dh.data());
        for (const auto& s : parameters_.fc_norm) is_final(s);
    }

    void backward_step(std::int64_t k, Element* dh, const FinalSlots& is_final) {
        work_.step.backward(parameters_, table(), work_.batch, input_of(k),
                            work_.angles[static_cast<std::size_t>(k)], work_.activations, k, dh,
                            is_final);
    }

    /// The captured states, with fc_norm each third normalised by its own weight. [N, 3Dt]
    const Element* projection_input() {
        if (!config_.fc_norm) return projection_input_data();
        const auto n = work_.batch.rows(), dt = config_.target_hidden_size;
        const Element* in = work_.batch.hidden.data();
        work_.normed.resize(static_cast<std::size_t>(n * 3 * dt));
        work_.fc_rms.resize(static_cast<std::size_t>(3 * n));
        for (std::int64_t i = 0; i < 3; ++i)
            rms_norm(device_, in + i * dt, 3 * dt, parameters_.value(parameters_.fc_norm[i]),
                     work_.normed.data() + i * dt, 3 * dt, work_.fc_rms.data() + i * n, n, dt,
                     static_cast<float>(config_.rms_norm_eps));
        return work_.normed.data();
    }
    const Element* projection_input_data() const {
        return config_.fc_norm ? work_.normed.data() : work_.batch.hidden.data();
    }

    void backward_fc_norm(const Element* dh) {
        const auto n = work_.batch.rows(), d = config_.hidden_size, dt = config_.target_hidden_size;
        const Element* in = work_.batch.hidden.data();
        linear_backward_input(device_, dh, d, parameters_.value(parameters_.fc),
                              work_.normed.data(), 3 * dt, n, 3 * dt, d, false, work_.scratch);
        for (std::int64_t i = 0; i < 3; ++i)
            rms_norm_backward(
                device_, in + i * dt, 3 * dt, parameters_.value(parameters_.fc_norm[i]),
                work_.normed.data() + i * dt, 3 * dt, static_cast<Element*>(nullptr), dt,
                work_.fc_rms.data() + i * n, parameters_.grad(parameters_.fc_norm[i]), n, dt);
    }

    const Element* table() const { return embedding_.template as<Element>().data(); }
    const Element* input_of(std::int64_t k) const {
        return k == 0 ? work_.projected.data()
                      : work_.activations[static_cast<std::size_t>(k - 1)].hidden.data();
    }

    D device_;
    ModelConfig config_;
    Eagle3Options options_;
    VocabMap map_;
    Eagle3Parameters<Element> parameters_;
    Tensor embedding_;  // [V, D]
    TeacherHead<Element> teacher_;
    RotaryTable rotary_;
    Eagle3Workspace<D, Element> work_;
    Arena arena_;
    std::int64_t reserved_rows_ = 0;
    const Batch* next_ = nullptr;  // ahead()
};

}  // namespace eyas
