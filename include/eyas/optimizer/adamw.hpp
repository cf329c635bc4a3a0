#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "eyas/device/concept.hpp"
#include "eyas/device/transfer.hpp"
#include "eyas/model/concept.hpp"
#include "eyas/ops/rows.hpp"

namespace eyas {

struct AdamWOptions {
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
    double weight_decay = 0.0;  // decoupled: w *= 1 - rate * weight_decay
};

namespace detail {
/// One element's update, in the order of operations of torch.optim.AdamW (single tensor):
/// decay, lerp of the first moment, second moment, then w -= size * m / (sqrt(v)/bias + epsilon).
template <class Element>
struct AdamWUpdate {
    const float* grad;
    float *master, *exp_avg, *exp_avg_sq;
    Element* value;  // the model's copy, in its precision; of float the master itself
    float scale;     // of the gradient (clipping)
    float decay;     // 1 - rate * weight_decay
    float one_minus_beta1, beta2, one_minus_beta2;
    float bias2_sqrt;  // sqrt(1 - beta2^t)
    float epsilon;
    float minus_step;  // -rate / (1 - beta1^t)

    EYAS_HD void operator()(std::int64_t i) const {
        const float g = grad[i] * scale;
        const float w = master[i] * decay;
        const float m = exp_avg[i] + one_minus_beta1 * (g - exp_avg[i]);
        const float v = exp_avg_sq[i] * beta2 + (one_minus_beta2 * g) * g;
        exp_avg[i] = m;
        exp_avg_sq[i] = v;
        master[i] = w + (minus_step * m) / (std::sqrt(v) / bias2_sqrt + epsilon);
        if constexpr (!std::is_same_v<Element, float>) value[i] = Element(master[i]);
    }
};
}  // namespace detail

/// What AdamW keeps of a parameter, as the beginning of a tensor's name; of one that receives no
/// gradient the first alone.
inline constexpr std::array<const char*, 3> adamw_state{"master.", "exp_avg.", "exp_avg_sq."};

/// Memory of AdamW's state in bytes for so many trained elements of a model that holds T.
template <class T>
constexpr std::uint64_t adamw_bytes(std::uint64_t trained) {
    return trained * (std::is_same_v<T, float> ? 8 : 12);
}

/// AdamW (Loshchilov & Hutter 2019) on fp32 masters of a model's parameters; after each step the
/// model holds the masters rounded to its precision. The masters of an fp32 model are its values.
/// One fused pass per parameter. A parameter that receives no gradient is left alone, as torch
/// leaves one whose grad is None. Memory: adamw_bytes. Driven by the one thread that drives the
/// model; owns its state and keeps views of the model's values and gradients, so the model must
/// outlive it.
template <Device D>
class AdamW {
public:
    /// Masters begin as the model's current values; moments start at zero.
    AdamW(const D& device, std::span<const Parameter> parameters, AdamWOptions options = {})
        : device_(device), options_(options), parameters_(parameters.begin(), parameters.end()) {
        for (const auto& p : parameters_) {
            const Shape moment = p.receives_gradient ? p.value.shape : Shape{0};
            const bool own = p.value.dtype != DType::F32;
            masters_.push_back(
                Tensor(DType::F32, own ? p.value.shape : Shape{0}, device_.memory()));
            exp_avg_.push_back(zeros_on(device_, DType::F32, moment));
            exp_avg_sq_.push_back(zeros_on(device_, DType::F32, moment));
        }
        reset_masters();
    }

    /// One update with the given learning rate; gradients are read times `gradient_scale`.
    void step(double rate, float gradient_scale = 1.f) {
        step(rate, gradient_scale, [](std::size_t) {});
    }

    /// The same; done(i) is called when the i-th parameter has its new values.
    template <class Done>
    void step(double rate, float gradient_scale, Done&& done) {
        ++step_;
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            if (!parameters_[i].receives_gradient) continue;
            if (parameters_[i].value.dtype == DType::BF16)
                update<BFloat16>(i, rate, gradient_scale);
            else
                update<float>(i, rate, gradient_scale);
            done(i);
        }
    }

    /// Masters again from the model's values (after weights were loaded into the model).
    void reset_masters() {
        for (std::size_t i = 0; i < parameters_.size(); ++i)
            if (parameters_[i].value.dtype != DType::F32)
                convert_on(device_, parameters_[i].value, masters_[i].mutable_view());
    }

    /// Number of updates done.
    std::int64_t step_count() const { return step_; }
    void set_step_count(std::int64_t step) { step_ = step; }

    /// The whole state, for checkpoints: master.<parameter>, and exp_avg.<parameter> and
    /// exp_avg_sq.<parameter> of those that receive a gradient. All float32; writing through the
    /// buffers restores a state. Views live as long as this object and the model.
    std::vector<NamedBuffer> state() {
        std::vector<NamedBuffer> all;
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            const auto& name = parameters_[i].name;
            all.push_back({adamw_state[0] + name, master(i)});
            if (!parameters_[i].receives_gradient) continue;
            all.push_back({adamw_state[1] + name, exp_avg_[i].mutable_view()});
            all.push_back({adamw_state[2] + name, exp_avg_sq_[i].mutable_view()});
        }
        return all;
    }

    const AdamWOptions& options() const { return options_; }
    std::span<const Parameter> parameters() const { return parameters_; }

private:
    MutableTensorView master(std::size_t i) {
        return parameters_[i].value.dtype == DType::F32 ? parameters_[i].value
                                                        : masters_[i].mutable_view();
    }

    template <class Element>
    void update(std::size_t i, double rate, float gradient_scale) {
        const auto t = static_cast<double>(step_);
        const double bias1 = 1 - std::pow(options_.beta1, t);
        const double bias2 = 1 - std::pow(options_.beta2, t);
        const detail::AdamWUpdate<Element> f{
            .grad = parameters_[i].grad.template as<float>().data(),
            .master = master(i).template as<float>().data(),
            .exp_avg = exp_avg_[i].template as<float>().data(),
            .exp_avg_sq = exp_avg_sq_[i].template as<float>().data(),
            .value = parameters_[i].value.template as<Element>().data(),
            .scale = gradient_scale,
            .decay = static_cast<float>(1 - rate * options_.weight_decay),
            .one_minus_beta1 = static_cast<float>(1 - options_.beta1),
            .beta2 = static_cast<float>(options_.beta2),
            .one_minus_beta2 = static_cast<float>(1 - options_.beta2),
            .bias2_sqrt = static_cast<float>(std::sqrt(bias2)),
            .epsilon = static_cast<float>(options_.epsilon),
            .minus_step = static_cast<float>(-(rate / bias1)),
        };
        device_.for_each(parameters_[i].value.shape.elements(), f);
    }

    D device_;
    AdamWOptions options_;
    std::vector<Parameter> parameters_;
    std::vector<Tensor> masters_;  // empty where the model's values are fp32
    std::vector<Tensor> exp_avg_, exp_avg_sq_;
    std::int64_t step_ = 0;
};

}  // namespace eyas
