#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <utility>
#include <vector>

#include "eyas/core/narrowing.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/device/precision.hpp"
#include "eyas/ops/linear.hpp"

namespace eyas {

/// A linear layer that is not trained: weight [O, I], held only in the form that the device
/// multiplies fastest with, and a bias [O] in fp32 where there is one; rows, sums and results are
/// fp32. Under Bf16 the weight and the inputs of products are rounded to bfloat16, as models that
/// are published in it are run on GPUs. In a form of the device's own a row of the result has the
/// same bits whatever rows are multiplied beside it.
template <PrecisionPolicy P = F32>
class FrozenLinear {
public:
    FrozenLinear() = default;
    /// Takes the weight, fp32; an empty bias is none. `narrow`: under F32 too, hold the weight in
    /// bfloat16 where that is exact, which takes half the memory and less time for few rows, more
    /// for hundreds of them.
    template <Device D>
    FrozenLinear(const D& device, Tensor weight, Tensor bias = {}, bool narrow = true)
        : out_(weight.shape()[0]),
          in_(weight.shape()[1]),
          weight_(std::move(weight)),
          bias_(std::move(bias)) {
        const bool exact = !rounds && narrow && exact_in_bfloat16(weight_.as<float>());
        if ((rounds || exact) && took_narrow_form(device)) return;
        if (rounds) round_to_bfloat16(weight_.as<float>());
        pack(device);
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
    static constexpr bool rounds = std::same_as<P, Bf16>;
    enum class Form { Plain, Packed, Narrow };

    template <Device D>
    bool took_narrow_form([[maybe_unused]] const D& device) {
        if constexpr (NarrowingDevice<D, P>) {
            if (!device.narrows(out_, in_)) return false;
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
        if constexpr (NarrowingDevice<D, P>)
            if (form_ == Form::Narrow)
                return device.matmul(
                    NarrowMatmul<P>{rows, out_, in_, x, weight_.as<BFloat16>().data(), y, add});
        if constexpr (rounds) {
            static thread_local std::vector<float> rounded;
            rounded.resize(static_cast<std::size_t>(rows * in_));
            float* to = rounded.data();
            device.for_each_row(rows, [=, in = in_](std::int64_t r) {
                std::copy_n(x + r * in, in, to + r * in);
                round_to_bfloat16({to + r * in, static_cast<std::size_t>(in)});
            });
            x = to;
        }
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
