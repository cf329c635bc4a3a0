#pragma once
#include <concepts>
#include <cstdint>

#include "eyas/core/arena.hpp"
#include "eyas/device/concept.hpp"

namespace eyas {

/// Scratch for matmuls whose fp32 result is rounded to a narrower T; unused when T is float.
using RoundingScratch = ArenaArray<float>;

/// The weight of a linear layer [O, I], and the same packed where the device multiplies faster so.
template <class T>
struct LinearWeight {
    const T* plain = nullptr;
    std::int64_t out = 0, in = 0;
    const float* packed = nullptr;  // PackingDevice::pack() of it, or nullptr
};

namespace detail {
/// y = product, or y += product, of what is [rows, width] in fp32 and is rounded to T first.
template <class T, Device Dev>
void round_product(const Dev& device, const float* from, T* y, std::int64_t y_stride,
                   std::int64_t rows, std::int64_t width, bool add) {
    device.for_each_row(rows, [=](std::int64_t r) {
        for (std::int64_t j = 0; j < width; ++j) {
            const float v = static_cast<float>(T(from[r * width + j]));
            T& slot = y[r * y_stride + j];
            slot = T(add ? static_cast<float>(slot) + v : v);
        }
    });
}

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
        product.c = scratch.data(), product.ldc = product.n;
        device.matmul(product);
        round_product(device, scratch.data(), y, y_stride, product.m, product.n, add);
    }
}
template <class T, PackingDevice Dev>
void matmul_rounded(const Dev& device, PackedMatmul<T> product, T* y, bool add,
                    RoundingScratch& scratch) {
    if constexpr (std::same_as<T, float>) {
        product.y = y, product.add = add;
        device.matmul(product);
    } else {
        scratch.resize(static_cast<std::size_t>(product.m * product.n));
        product.y = scratch.data();
        device.matmul(product);
        round_product(device, scratch.data(), y, product.n, product.m, product.n, add);
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

/// The same with x [N, I] and y [N, O] without gaps, and a weight that may be packed.
template <class T, Device Dev>
void linear(const Dev& device, const T* x, const LinearWeight<T>& weight, T* y, std::int64_t rows,
            bool add, RoundingScratch& scratch) {
    if constexpr (PackingDevice<Dev>)
        if (weight.packed)
            return detail::matmul_rounded(
                device, PackedMatmul<T>{rows, weight.out, weight.in, x, weight.packed}, y, add,
                scratch);
    linear(device, x, weight.in, weight.plain, y, weight.out, rows, weight.in, weight.out, add,
           scratch);
}

/// y = residual + x W^T, the product rounded to T first. All [N, O] without gaps; y is another
/// array than the residual.
template <class T, Device Dev>
void linear_residual(const Dev& device, const T* x, const LinearWeight<T>& weight,
                     const T* residual, T* y, std::int64_t rows, RoundingScratch& scratch) {
    device.copy(residual, y, static_cast<std::size_t>(rows * weight.out) * sizeof(T));
    linear(device, x, weight, y, rows, true, scratch);
}

/// y = x W^T in fp32, not rounded. x [N, I], y [N, O].
template <class T, Device Dev>
void linear_unrounded(const Dev& device, const T* x, const LinearWeight<T>& weight, float* y,
                      std::int64_t rows) {
    if constexpr (PackingDevice<Dev>)
        if (weight.packed)
            return device.matmul(PackedMatmul<T>{rows, weight.out, weight.in, x, weight.packed, y});
    device.matmul(Matmul<T, float>{Op::None, Op::Transposed, rows, weight.out, weight.in, x,
                                   weight.in, weight.plain, weight.in, y, weight.out, 1.f, 0.f});
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
