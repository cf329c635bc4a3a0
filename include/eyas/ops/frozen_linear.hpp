#pragma once
#include <cstdint>
#include <utility>

#include "eyas/core/narrowing.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/ops/linear.hpp"

namespace eyas {

/// A linear layer that is not trained: weight [O, I] fp32, held only in the form that the device
/// multiplies fastest with (in bfloat16 where that is exact), and a bias [O] where there is one. In
/// a form of the device's own a row of the result has the same bits whatever rows are multiplied
/// beside it.
class FrozenLinear {
public:
    FrozenLinear() = default;
    /// Takes the weight; an empty bias is none. `narrow`: hold it in bfloat16 where that is exact,
    /// which takes half the memory and less time for few rows, more for hundreds of them.
    template <Device D>
    FrozenLinear(const D& device, Tensor weight, Tensor bias = {}, bool narrow = true)
        : out_(weight.shape()[0]),
          in_(weight.shape()[1]),
          weight_(std::move(weight)),
          bias_(std::move(bias)) {
        if (!narrow || !narrowed(device)) pack(device);
    }

    std::int64_t out() const { return out_; }
    std::int64_t in() const { return in_; }
    /// Whether rows of a result do not depend on one another.
    bool row_invariant() const { return form_ != Form::Plain; }

    /// y = x W^T + b, or y += x W^T + b. x [N, I], y [N, O].
    template <Device D>
    void operator()(const D& device, const float* x, float* y, std::int64_t rows, bool add) const {
        multiply(device, x, y, rows, add);
        if (bias_.empty()) return;
        const float* b = bias_.as<float>().data();
        device.for_each_row(rows, [=, out = out_](std::int64_t r) {
            for (std::int64_t j = 0; j < out; ++j) y[r * out + j] += b[j];
        });
    }

private:
    enum class Form { Plain, Packed, Narrow };

    template <Device D>
    bool narrowed([[maybe_unused]] const D& device) {
        if constexpr (NarrowingDevice<D>) {
            if (!device.narrows(out_, in_) || !exact_in_bfloat16(weight_.as<float>())) return false;
            Tensor narrow(DType::BF16, {out_, in_});
            device.narrow(weight_.as<float>().data(), out_, in_, narrow.as<BFloat16>().data());
            weight_ = std::move(narrow);
            form_ = Form::Narrow;
            return true;
        }
        return false;
    }

    template <Device D>
    void pack([[maybe_unused]] const D& device) {
        if constexpr (PackingDevice<D>) {
            if (!device.packs(out_, in_)) return;
            Tensor packed(DType::F32, {out_, in_});
            device.pack(weight_.as<float>().data(), out_, in_, packed.as<float>().data());
            weight_ = std::move(packed);
            form_ = Form::Packed;
        }
    }

    template <Device D>
    void multiply(const D& device, const float* x, float* y, std::int64_t rows, bool add) const {
        if constexpr (NarrowingDevice<D>)
            if (form_ == Form::Narrow)
                return device.matmul(
                    NarrowMatmul{rows, out_, in_, x, weight_.as<BFloat16>().data(), y, add});
        const float* w = weight_.as<float>().data();
        RoundingScratch unused;
        linear(device, x, LinearWeight<float>{w, out_, in_, form_ == Form::Packed ? w : nullptr}, y,
               rows, add, unused);
    }

    std::int64_t out_ = 0, in_ = 0;
    Tensor weight_, bias_;
    Form form_ = Form::Plain;
};

}  // namespace eyas
