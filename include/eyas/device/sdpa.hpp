#pragma once
#include <compare>
#include <concepts>
#include <cstdint>

#include "eyas/core/bfloat16.hpp"
#include "eyas/device/block.hpp"

namespace eyas {

/// Causal attention in bfloat16 as a library computes it. Row t of batch row b attends to keys
/// s <= t, s < keys[b]; query head h reads key/value head h*G/H. Strides are elements between the
/// rows of all heads; log_sum is [B, H, T], dk and dv are [B*T, G*E] without gaps.
struct SdpaShape {
    std::int64_t batch = 0, tokens = 0, heads = 0, kv_heads = 0, head_dim = 0;
    std::int64_t q_stride = 0, kv_stride = 0, out_stride = 0;
    float scale = 1.f;
    bool leading_keys =
        false;  // the host knows that a row's keys are the first ones (else: refused)
    std::int64_t d_out_stride = 0, dq_stride = 0;  // the backward's; 0: the forward

    bool backward() const { return dq_stride > 0; }
    auto operator<=>(const SdpaShape&) const = default;
};

/// Arrays of the device, at multiples of 16 bytes where the shape's widths are. The forward writes
/// out and log_sum; the backward reads them and writes dq, dk and dv. What it reads may hold more
/// than these keys' share: with out and log_sum of a softmax over more keys, it gives the causal
/// keys' part of that softmax's gradient.
struct SdpaArrays {
    const BFloat16 *q = nullptr, *k = nullptr, *v = nullptr;
    BFloat16* out = nullptr;
    float* log_sum = nullptr;
    std::int32_t *rows = nullptr, *keys = nullptr;  // [B] each: T, and the keys that are seen
    const BFloat16* d_out = nullptr;
    BFloat16 *dq = nullptr, *dk = nullptr, *dv = nullptr;
};

/// A block device that may have such a library. `plans_sdpa` makes a shape ready at first sight;
/// false: no library was chosen, or it does not take the shape.
template <class D>
concept SdpaDevice = BlockDevice<D> &&
    requires(const D& d, const SdpaShape& shape, const SdpaArrays& arrays) {
    { d.plans_sdpa(shape) } -> std::same_as<bool>;
    d.sdpa(shape, arrays);
};

}  // namespace eyas
