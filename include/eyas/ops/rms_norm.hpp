#pragma once
#include <cmath>
#include <cstdint>

#include "eyas/device/concept.hpp"

namespace eyas {

namespace detail {
template <class T>
inline float inverse_rms(const T* x, std::int64_t width, float epsilon) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = 0; j < width; ++j)
        sum += static_cast<float>(x[j]) * static_cast<float>(x[j]);
    return 1.f / std::sqrt(sum / static_cast<float>(width) + epsilon);
}
}  // namespace detail

/// y = weight * (x / rms(x)), row by row: fp32 inside, the normalised value rounded to T before the
/// weight, as the reference does. x rows are `x_stride` apart, y rows `y_stride`.
/// x [N, D], weight [D], y [N, D]; inverse_rms [N] is written for the backward. (RMSNorm: arXiv
/// 1910.07467.)
template <class T, Device Dev>
void rms_norm(const Dev& device, const T* x, std::int64_t x_stride, const T* weight, T* y,
              std::int64_t y_stride, float* inverse_rms, std::int64_t rows, std::int64_t width,
              float epsilon) {
    for_each_light_row(device, rows, 2 * width, [=](std::int64_t r) {
        const T* in = x + r * x_stride;
        T* out = y + r * y_stride;
        const float scale = detail::inverse_rms(in, width, epsilon);
        inverse_rms[r] = scale;
        for (std::int64_t j = 0; j < width; ++j)
            out[j] = T(static_cast<float>(weight[j]) *
                       static_cast<float>(T(static_cast<float>(in[j]) * scale)));
    });
}

/// Backward of rms_norm: adds to dx (dx may hold the gradient that came past the norm) and to
/// d_weight. With u = x * s, s = 1/rms: dx += s * (g - u * mean(g * u)), g = dy * weight;
/// d_weight += sum over rows of dy * u.
/// x, dy, dx [N, D] of T, inverse_rms [N] from the forward, d_weight [D] fp32; dx may be null.
template <class T, Device Dev>
void rms_norm_backward(const Dev& device, const T* x, std::int64_t x_stride, const T* weight,
                       const T* dy, std::int64_t dy_stride, T* dx, std::int64_t dx_stride,
                       const float* inverse_rms, float* d_weight, std::int64_t rows,
                       std::int64_t width) {
    if (dx) {
        device.for_each_row(rows, [=](std::int64_t r) {
            const T* in = x + r * x_stride;
            const T* g = dy + r * dy_stride;
            T* out = dx + r * dx_stride;
            const float scale = inverse_rms[r];
            float dot = 0;
#pragma omp simd reduction(+ : dot)
            for (std::int64_t j = 0; j < width; ++j)
                dot += static_cast<float>(g[j]) * static_cast<float>(weight[j]) *
                       static_cast<float>(in[j]);
            const float mean = dot * scale * scale / static_cast<float>(width);
            for (std::int64_t j = 0; j < width; ++j) {
                const float gw = static_cast<float>(g[j]) * static_cast<float>(weight[j]);
                const float d = scale * (gw - static_cast<float>(in[j]) * mean);
                out[j] = T(static_cast<float>(out[j]) + static_cast<float>(T(d)));
            }
        });
    }
    // Columns in strips, rows in order: the sum does not depend on the number of threads.
    constexpr std::int64_t strip = 64;
    device.for_each_row((width + strip - 1) / strip, [=](std::int64_t s) {
        const auto begin = s * strip, end = begin + strip < width ? begin + strip : width;
        float sum[strip] = {};
        for (std::int64_t r = 0; r < rows; ++r) {
            const T* in = x + r * x_stride;
            const T* g = dy + r * dy_stride;
            const float scale = inverse_rms[r];
            for (std::int64_t j = begin; j < end; ++j)
                sum[j - begin] += static_cast<float>(g[j]) *
                                  static_cast<float>(T(static_cast<float>(in[j]) * scale));
        }
        for (std::int64_t j = begin; j < end; ++j) d_weight[j] += sum[j - begin];
    });
}

}  // namespace eyas
