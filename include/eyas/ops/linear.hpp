#pragma once
#include <concepts>
#include <cstdint>

#include "eyas/core/arena.hpp"
#include "eyas/device/concept.hpp"

namespace eyas {

/// Scratch for matmuls whose fp32 result is rounded to a narrower T; unused when T is float.
using RoundingScratch = ArenaArray<float>;

namespace detail {
/// y = product, or y += product, where the product is rounded to T before the addition (a residual
/// addition of the reference). Float writes straight into y.
template <class T, Device Dev>
void matmul_rounded(const Dev& device, Matmul<T, float> product, T* y, std::int64_t y_stride,
                    bool add, RoundingScratch& scratch) {
    if constexpr (std::same_as<T, float>) {
        product.c = y;
        product.ldc = y_stride;
        product.beta = add ? 1.f : 0.f;
        device.matmul(product);
    } else {
        scratch.resize(static_cast<std::size_t>(product.m * product.n));
        const float* from = product.c = scratch.data();
        const auto width = product.ldc = product.n;
        device.matmul(product);
        device.for_each_row(product.m, [=](std::int64_t r) {
            for (std::int64_t j = 0; j < width; ++j) {
                const float v = static_cast<float>(T(from[r * width + j]));
                T& slot = y[r * y_stride + j];
                slot = T(add ? static_cast<float>(slot) + v : v);
            }
        });
    }
}
}  // namespace detail

/// y = x W^T, or y += x W^T. x [N, I] (rows x_stride apart), W [O, I], y [N, O] (rows y_stride
/// apart).
template <class T, Device Dev>
void linear(const Dev& device, const T* x, std::int64_t x_stride, const T* weight, T* y,
            std::int64_t y_stride, std::int64_t rows, std::int64_t in, std::int64_t out, bool add,
            RoundingScratch& scratch) {
    detail::matmul_rounded(
        device, Matmul<T, float>{Op::None, Op::Transposed, rows, out, in, x, x_stride, weight, in},
        y, y_stride, add, scratch);
}

/// dx = dy W, or dx += dy W. dy [N, O], W [O, I], dx [N, I].
template <class T, Device Dev>
void linear_backward_input(const Dev& device, const T* dy, std::int64_t dy_stride, const T* weight,
                           T* dx, std::int64_t dx_stride, std::int64_t rows, std::int64_t in,
                           std::int64_t out, bool add, RoundingScratch& scratch) {
    detail::matmul_rounded(
        device, Matmul<T, float>{Op::None, Op::None, rows, in, out, dy, dy_stride, weight, in}, dx,
        dx_stride, add, scratch);
}

/// d_weight += dy^T x, in fp32. dy [N, O], x [N, I], d_weight [O, I].
template <class T, Device Dev>
void linear_backward_weight(const Dev& device, const T* dy, std::int64_t dy_stride, const T* x,
                            std::int64_t x_stride, float* d_weight, std::int64_t rows,
                            std::int64_t in, std::int64_t out) {
    device.matmul(Matmul<T, float>{Op::Transposed, Op::None, out, in, rows, dy, dy_stride, x,
                                   x_stride, d_weight, in, 1.f, 1.f});
}

}  // namespace eyas
