#pragma once
#include <cstdint>

#include "eyas/device/concept.hpp"
#include "eyas/ops/exp.hpp"

namespace eyas {

/// a = silu(gate) * up. gate_up [N, 2F] holds gate then up in each row; a [N, F].
/// (SwiGLU: arXiv 2002.05202; silu(x) = x * sigmoid(x).)
template <class T, Device Dev>
void swiglu(const Dev& device, const T* gate_up, T* a, std::int64_t rows, std::int64_t width) {
    for_each_light_row(device, rows, 4 * width, [=](std::int64_t r) {
        const T* gate = gate_up + r * 2 * width;
        const T* up = gate + width;
        T* out = a + r * width;
#pragma omp simd
        for (std::int64_t j = 0; j < width; ++j) {
            const float g = static_cast<float>(gate[j]);
            const float silu = static_cast<float>(T(g / (1.f + exp_fast(-g))));
            out[j] = T(silu * static_cast<float>(up[j]));
        }
    });
}

/// Backward of swiglu, writing over its input: gate_up becomes d_gate, d_up.
/// gate_up [N, 2F], da [N, F].
template <class T, Device Dev>
void swiglu_backward(const Dev& device, T* gate_up, const T* da, std::int64_t rows,
                     std::int64_t width) {
    device.for_each_row(rows, [=](std::int64_t r) {
        T* gate = gate_up + r * 2 * width;
        T* up = gate + width;
        const T* d = da + r * width;
#pragma omp simd
        for (std::int64_t j = 0; j < width; ++j) {
            const float g = static_cast<float>(gate[j]), dy = static_cast<float>(d[j]);
            const float sigmoid = 1.f / (1.f + exp_fast(-g));
            const float silu = static_cast<float>(T(g * sigmoid));
            const float d_silu = static_cast<float>(T(dy * static_cast<float>(up[j])));
            gate[j] = T(d_silu * sigmoid * (1.f + g * (1.f - sigmoid)));
            up[j] = T(dy * silu);
        }
    });
}

}  // namespace eyas
