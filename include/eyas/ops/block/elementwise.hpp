#pragma once
#include <concepts>
#include <cstdint>
#include <span>

#include "eyas/device/block.hpp"
#include "eyas/ops/embedding.hpp"
#include "eyas/ops/linear.hpp"
#include "eyas/ops/rotary.hpp"
#include "eyas/ops/rows.hpp"
#include "eyas/ops/swiglu.hpp"

namespace eyas {

namespace detail {

template <class T>
struct GatherCell {
    const T* from;
    const std::int64_t* index;
    T* to;
    std::int64_t width;
    EYAS_HD void operator()(std::int64_t r, std::int64_t j) const {
        to[r * width + j] = index[r] < 0 ? T(0.f) : from[index[r] * width + j];
    }
};
template <class T>
struct ScatterCell {
    const T* from;
    const std::int64_t* index;
    T* to;
    std::int64_t width;
    EYAS_HD void operator()(std::int64_t r, std::int64_t j) const {
        to[index[r] * width + j] = from[r * width + j];
    }
};
template <class From, class To>
struct CopyCell {
    const From* from;
    std::int64_t from_stride;
    To* to;
    std::int64_t to_stride;
    EYAS_HD void operator()(std::int64_t r, std::int64_t j) const {
        to[r * to_stride + j] = To(from[r * from_stride + j]);
    }
};
struct ShiftLeft {
    const std::int64_t* in;
    std::int64_t* out;
    const std::int64_t* document;
    std::int64_t tokens, by, fill;
    EYAS_HD void operator()(std::int64_t i) const {
        const bool inside = i % tokens + by < tokens && document[i + by] == document[i];
        out[i] = inside ? in[i + by] : fill;
    }
};
template <class T>
struct AddTo {
    T* to;
    const T* from;
    EYAS_HD void operator()(std::int64_t i) const {
        to[i] = T(static_cast<float>(to[i]) + static_cast<float>(from[i]));
    }
};
template <class From, class To>
struct ConvertTo {
    const From* from;
    To* to;
    EYAS_HD void operator()(std::int64_t i) const { to[i] = To(static_cast<float>(from[i])); }
};
template <class T>
struct RoundInPlace {
    float* z;
    EYAS_HD void operator()(std::int64_t i) const { z[i] = static_cast<float>(T(z[i])); }
};
/// y = residual + T(product), the product [rows, width] without gaps; residual may be y.
template <class T>
struct AddProduct {
    const float* from;
    const T* residual;
    T* y;
    std::int64_t y_stride, width;
    EYAS_HD void operator()(std::int64_t r, std::int64_t j) const {
        const auto at = r * y_stride + j;
        y[at] = T(static_cast<float>(residual[at]) + static_cast<float>(T(from[r * width + j])));
    }
};
template <class T>
struct SwigluCell {
    const T* gate_up;
    T* a;
    std::int64_t width;
    EYAS_HD void operator()(std::int64_t r, std::int64_t j) const {
        const float g = static_cast<float>(gate_up[r * 2 * width + j]);
        const float silu = static_cast<float>(T(g / (1.f + exp_fast(-g))));
        a[r * width + j] = T(silu * static_cast<float>(gate_up[(r * 2 + 1) * width + j]));
    }
};
template <class T>
struct SwigluBackwardCell {
    T* gate_up;
    const T* da;
    std::int64_t width;
    EYAS_HD void operator()(std::int64_t r, std::int64_t j) const {
        T &gate = gate_up[r * 2 * width + j], &up = gate_up[(r * 2 + 1) * width + j];
        const float g = static_cast<float>(gate), dy = static_cast<float>(da[r * width + j]);
        const float sigmoid = 1.f / (1.f + exp_fast(-g));
        const float silu = static_cast<float>(T(g * sigmoid));
        const float d_silu = static_cast<float>(T(dy * static_cast<float>(up)));
        gate = T(d_silu * sigmoid * (1.f + g * (1.f - sigmoid)));
        up = T(dy * silu);
    }
};
/// Both halves of column j of a row's heads; j counts pairs.
template <class T>
struct RotaryCell {
    T* x;
    std::int64_t stride, width;  // of a row, of a head
    const float *cos, *sin;
    float direction;
    EYAS_HD T part(float u, float v) const { return T(u * v); }
    EYAS_HD T sum(T u, T v) const { return T(static_cast<float>(u) + static_cast<float>(v)); }
    EYAS_HD void operator()(std::int64_t r, std::int64_t pair) const {
        // A row's pairs are counted in 32 bits: a GPU divides those without a call.
        const auto half = static_cast<std::uint32_t>(width / 2),
                   at = static_cast<std::uint32_t>(pair);
        const std::int64_t j = at % half;
        T* head = x + r * stride + at / half * width;
        const float *c = cos + r * width, *s = sin + r * width;
        const float a = static_cast<float>(head[j]), b = static_cast<float>(head[j + half]);
        if (direction > 0) {
            head[j] = sum(part(a, c[j]), part(-b, s[j]));
            head[j + half] = sum(part(b, c[j + half]), part(a, s[j + half]));
        } else {
            head[j] = sum(part(a, c[j]), part(b, s[j + half]));
            head[j + half] = sum(part(b, c[j + half]), part(-a, s[j]));
        }
    }
};
struct RotationCell {
    RotaryTable::OnDevice table;
    const std::int64_t* positions;  // [1 or 3, rows]
    std::int64_t rows, width, offset;
    bool three;
    float *cos, *sin;
    EYAS_HD void operator()(std::int64_t r, std::int64_t e) const {
        const auto axis = three ? table.axis[e] : 0;
        const auto from = (positions[axis * rows + r] + offset) * width + e;
        cos[r * width + e] = table.cos[from];
        sin[r * width + e] = table.sin[from];
    }
};

/// matmul_rounded of a device whose products round by themselves: y = product, or residual +
/// product, whose rows lie as y's do (it may be y).
template <class T, BlockDevice Dev>
void block_product(const Dev& device, Matmul<T, float> x, T* y, std::int64_t y_stride,
                   const T* residual, RoundingScratch& scratch) {
    if constexpr (std::same_as<T, float>) {
        x.c = y, x.ldc = y_stride, x.beta = residual ? 1.f : 0.f;
        device.matmul(BatchedMatmul<T, float>{x, 1, 0, 0, 0, residual});
    } else if (residual) {
        scratch.resize(static_cast<std::size_t>(x.m * x.n));
        x.c = scratch.data(), x.ldc = x.n;
        device.matmul(x);
        launch_cells(device, x.m, x.n, AddProduct<T>{scratch.data(), residual, y, y_stride, x.n});
    } else {
        device.matmul(Matmul<T, T>{x.op_a, x.op_b, x.m, x.n, x.k, x.a, x.lda, x.b, x.ldb, y,
                                   y_stride, x.alpha, 0.f});
    }
}

}  // namespace detail

template <class T, BlockDevice Dev>
void gather_rows(const Dev& device, const T* from, const std::int64_t* index, T* to, std::int64_t n,
                 std::int64_t width) {
    launch_cells(device, n, width, detail::GatherCell<T>{from, index, to, width});
}
template <class T, BlockDevice Dev>
void scatter_rows(const Dev& device, const T* from, const std::int64_t* index, T* to,
                  std::int64_t n, std::int64_t width) {
    launch_cells(device, n, width, detail::ScatterCell<T>{from, index, to, width});
}
template <class T, BlockDevice Dev>
void copy_columns(const Dev& device, const T* from, std::int64_t from_stride, T* to,
                  std::int64_t to_stride, std::int64_t n, std::int64_t width) {
    launch_cells(device, n, width, detail::CopyCell<T, T>{from, from_stride, to, to_stride});
}
template <class T, BlockDevice Dev>
void round_rows(const Dev& device, const float* from, T* to, std::int64_t stride, std::int64_t n,
                std::int64_t width) {
    launch_cells(device, n, width, detail::CopyCell<float, T>{from, width, to, stride});
}
template <class T, BlockDevice Dev>
void embedding(const Dev& device, const T* table, const std::int64_t* ids, T* out,
               std::int64_t rows, std::int64_t width) {
    gather_rows(device, table, ids, out, rows, width);
}
template <BlockDevice Dev>
void shift_left(const Dev& device, const std::int64_t* in, std::int64_t* out,
                const std::int64_t* document, std::int64_t batch, std::int64_t tokens,
                std::int64_t by, std::int64_t fill) {
    launch_each(device, batch * tokens, detail::ShiftLeft{in, out, document, tokens, by, fill});
}
template <class T, BlockDevice Dev>
void add(const Dev& device, T* to, const T* from, std::int64_t n) {
    launch_each(device, n, detail::AddTo<T>{to, from});
}
template <class T, BlockDevice Dev>
void round_into(const Dev& device, const float* from, T* to, std::int64_t n) {
    launch_each(device, n, detail::ConvertTo<float, T>{from, to});
}
template <class T, BlockDevice Dev>
void round_in_place(const Dev& device, float* z, std::int64_t n) {
    launch_each(device, n, detail::RoundInPlace<T>{z});
}
/// float32 or bfloat16 to float32 or bfloat16.
template <BlockDevice Dev>
void convert_on(const Dev& device, const TensorView& from, const MutableTensorView& to) {
    const auto n = from.elements();
    const auto convert = [&]<class From, class To>() {
        launch_each(device, n,
                    detail::ConvertTo<From, To>{from.as<From>().data(), to.as<To>().data()});
    };
    if (from.dtype == to.dtype)
        device.copy(from.data, to.data, from.size_bytes());
    else if (from.dtype == DType::BF16)
        convert.template operator()<BFloat16, float>();
    else
        convert.template operator()<float, BFloat16>();
}
template <class T, BlockDevice Dev>
void linear(const Dev& device, const T* x, std::int64_t x_stride, const T* weight, T* y,
            std::int64_t y_stride, std::int64_t rows, std::int64_t in, std::int64_t out, bool add,
            RoundingScratch& scratch) {
    detail::block_product(
        device, Matmul<T, float>{Op::None, Op::Transposed, rows, out, in, x, x_stride, weight, in},
        y, y_stride, add ? y : nullptr, scratch);
}
template <class T, BlockDevice Dev>
void linear_residual(const Dev& device, const T* x, const LinearWeight<T>& weight,
                     const T* residual, T* y, std::int64_t rows, RoundingScratch& scratch) {
    detail::block_product(device,
                          Matmul<T, float>{Op::None, Op::Transposed, rows, weight.out, weight.in, x,
                                           weight.in, weight.plain, weight.in},
                          y, weight.out, residual, scratch);
}
template <class T, BlockDevice Dev>
void linear_backward_input(const Dev& device, const T* dy, std::int64_t dy_stride, const T* weight,
                           T* dx, std::int64_t dx_stride, std::int64_t rows, std::int64_t in,
                           std::int64_t out, bool add, RoundingScratch& scratch) {
    detail::block_product(
        device, Matmul<T, float>{Op::None, Op::None, rows, in, out, dy, dy_stride, weight, in}, dx,
        dx_stride, add ? dx : nullptr, scratch);
}

template <class T, BlockDevice Dev>
void swiglu(const Dev& device, const T* gate_up, T* a, std::int64_t rows, std::int64_t width) {
    launch_cells(device, rows, width, detail::SwigluCell<T>{gate_up, a, width});
}
template <class T, BlockDevice Dev>
void swiglu_backward(const Dev& device, T* gate_up, const T* da, std::int64_t rows,
                     std::int64_t width) {
    launch_cells(device, rows, width, detail::SwigluBackwardCell<T>{gate_up, da, width});
}

template <class T, BlockDevice Dev>
void rotary(const Dev& device, T* x, std::int64_t rows, std::int64_t stride, std::int64_t heads,
            std::int64_t head_dim, const RotaryRows& angles, float direction) {
    launch_cells(
        device, rows, heads * (head_dim / 2),
        detail::RotaryCell<T>{x, stride, head_dim, angles.cos(0), angles.sin(0), direction});
}
template <BlockDevice Dev>
void assign_rotation(const Dev& device, RotaryRows& angles, RotaryTable& table,
                     std::span<const std::int64_t> host_positions, const std::int64_t* positions,
                     std::int64_t rows, std::int64_t offset) {
    angles.resize(rows);
    const bool three =
        !table.sections().empty() && static_cast<std::int64_t>(host_positions.size()) == 3 * rows;
    launch_cells(device, rows, table.width(),
                 detail::RotationCell{table.on(device), positions, rows, table.width(), offset,
                                      three, angles.cos(), angles.sin()});
}

}  // namespace eyas
