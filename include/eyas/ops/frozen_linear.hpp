#pragma once
#include <cstdint>
#include <utility>

#include "eyas/core/tensor.hpp"
#include "eyas/ops/linear.hpp"

namespace eyas {

/// A linear layer that is not trained: weight [O, I] fp32, held only in the form that the device
/// multiplies fastest with, and a bias [O] where there is one. With a packed weight a row of the
/// result has the same bits whatever rows are multiplied beside it.
class FrozenLinear {
public:
    FrozenLinear() = default;
    /// Takes the weight; an empty bias is none.
    template <Device D>
    FrozenLinear([[maybe_unused]] const D& device, Tensor weight, Tensor bias = {})
        : out_(weight.shape()[0]),
          in_(weight.shape()[1]),
          weight_(std::move(weight)),
          bias_(std::move(bias)) {
        if constexpr (PackingDevice<D>) {
            if (!device.packs(out_, in_)) return;
            Tensor packed(DType::F32, {out_, in_});
            device.pack(weight_.as<float>().data(), out_, in_, packed.as<float>().data());
            weight_ = std::move(packed);
            packed_ = true;
        }
    }

    std::int64_t out() const { return out_; }
    std::int64_t in() const { return in_; }
    /// Whether rows of a result do not depend on one another.
    bool row_invariant() const { return packed_; }

    /// y = x W^T + b, or y += x W^T + b. x [N, I], y [N, O].
    template <Device D>
    void operator()(const D& device, const float* x, float* y, std::int64_t rows, bool add) const {
        const float* w = weight_.as<float>().data();
        RoundingScratch unused;
        linear(device, x, LinearWeight<float>{w, out_, in_, packed_ ? w : nullptr}, y, rows, add,
               unused);
        if (bias_.empty()) return;
        const float* b = bias_.as<float>().data();
        device.for_each_row(rows, [=, out = out_](std::int64_t r) {
            for (std::int64_t j = 0; j < out; ++j) y[r * out + j] += b[j];
        });
    }

private:
    std::int64_t out_ = 0, in_ = 0;
    Tensor weight_, bias_;
    bool packed_ = false;
};

}  // namespace eyas
