#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "eyas/device/concept.hpp"
#include "eyas/model/concept.hpp"

namespace eyas {

namespace detail {
struct SquareOf {
    const float* x;
    EYAS_HD double operator()(std::int64_t i) const {
        return static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
};
}  // namespace detail

/// sum g^2 over every gradient of every parameter that receives one, summed in double in an order
/// that depends on the sizes alone. Infinite or NaN if any gradient is.
template <Device D>
double sum_of_squares(const D& device, std::span<const Parameter> parameters) {
    double total = 0;
    for (const auto& p : parameters) {
        if (!p.receives_gradient) continue;
        total += device.sum(p.grad.shape.elements(), detail::SquareOf{p.grad.as<float>().data()});
    }
    return total;
}

/// The root of it.
template <Device D>
double global_norm(const D& device, std::span<const Parameter> parameters) {
    return std::sqrt(sum_of_squares(device, parameters));
}

/// What gradients are multiplied by so that their norm does not pass `max_norm`:
/// min(1, max_norm / (norm + 1e-6)), as torch's clip_grad_norm_. 1 where max_norm is 0 (off).
inline float clip_scale(double norm, double max_norm) {
    if (max_norm <= 0) return 1.f;
    return static_cast<float>(std::min(1.0, max_norm / (norm + 1e-6)));
}

}  // namespace eyas
