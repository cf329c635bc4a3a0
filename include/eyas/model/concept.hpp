#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "eyas/core/tensor.hpp"
#include "eyas/format/hf_config.hpp"
#include "eyas/loader/batch.hpp"
#include "eyas/sample/vocab_map.hpp"

namespace eyas {

/// What one micro-step computed, one entry per TTT step (K of them); sums are over the whole batch.
/// Source of the definitions: SpecForge's EAGLE3 strategy (docs/numerics.md).
struct StepMetrics {
    std::vector<double> loss;        // step loss (SpecForge: ploss)
    std::vector<double> correct;     // supervised rows whose arg-max is the target's
    std::vector<double> supervised;  // rows with loss mask 1 after the shifts
    std::vector<double>
        acceptance_sum;  // sum of min(p_target, p_draft) over rows in the draft vocabulary
    std::vector<double> acceptance_rows;  // number of those rows
    double total_loss = 0;                // sum_k decay^k * loss_k, not divided by accumulation

    double accuracy(std::size_t k) const {
        return supervised[k] > 0 ? correct[k] / supervised[k] : 0;
    }
    double acceptance_rate(std::size_t k) const {
        return acceptance_rows[k] > 0 ? acceptance_sum[k] / acceptance_rows[k] : 0;
    }
};

/// A trainable parameter: values in the model's precision, gradients in fp32, same shape.
/// The spans live as long as the model and never move.
struct Parameter {
    std::string name;  // as in the reference's state dict, "midlayer.self_attn.q_proj.weight"
    MutableTensorView value;        // p
    MutableTensorView grad;         // float32
    bool receives_gradient = true;  // false: no path from the loss; the optimizer leaves it alone
};

/// What the trainer needs of a model. One thread drives a model; it may use many inside.
template <class M>
concept DraftModel = requires(M& m, const M& cm, const Batch& batch, float scale) {
    typename M::DeviceType;
    typename M::PrecisionType;
    // Adds scale * d total_loss / d parameter to every grad. Throws DataError for a batch that does
    // not fit the model, before any gradient changes.
    { m.forward_backward(batch, scale) } -> std::convertible_to<const StepMetrics&>;
    // The same numbers without gradients.
    { m.evaluate(batch) } -> std::convertible_to<const StepMetrics&>;
    { m.parameters() } -> std::convertible_to<std::span<const Parameter>>;  // in state-dict order
    {m.zero_gradients()};
    { cm.config() } -> std::convertible_to<const ModelConfig&>;
    { cm.vocab_map() } -> std::convertible_to<const VocabMap&>;
    { cm.device() } -> std::convertible_to<const typename M::DeviceType&>;
};

/// Told of a parameter, by its place among parameters(), when a call adds nothing more to its
/// gradient. On the thread that drives the model.
using GradientIsFinal = std::function<void(std::size_t parameter)>;

/// A model that says during forward_backward which gradients are final, so that their reduction
/// over ranks need not wait for its end. Each parameter at most once, in the same order on every
/// rank and in every call; those that are not told are final at the end.
template <class M>
concept TellsFinalGradients = DraftModel<M> &&
    requires(M& m, const Batch& batch, float scale, const GradientIsFinal& on_final) {
    { m.forward_backward(batch, scale, on_final) } -> std::convertible_to<const StepMetrics&>;
};

}  // namespace eyas
