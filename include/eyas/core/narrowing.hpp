#pragma once
#include <bit>
#include <cstdint>
#include <span>

#include "eyas/core/convert.hpp"
#include "eyas/core/tensor.hpp"

namespace eyas {

/// Whether bfloat16 holds every one of these numbers exactly, as it does of weights that were
/// published in it.
inline bool exact_in_bfloat16(std::span<const float> values) {
    std::uint32_t lost = 0;
    for (float v : values) lost |= std::bit_cast<std::uint32_t>(v) & 0xFFFFu;
    return lost == 0;
}

/// Each number becomes the nearest one that bfloat16 holds.
inline void round_to_bfloat16(std::span<float> values) {
    for (float& v : values) v = static_cast<float>(BFloat16(v));
}

/// A float32 tensor in bfloat16 where that is exact, else itself.
inline Tensor narrowed_where_exact(Tensor t) {
    if (t.dtype() != DType::F32 || !exact_in_bfloat16(t.as<float>())) return t;
    Tensor narrow(DType::BF16, t.shape());
    convert_into(t.view(), narrow.mutable_view());
    return narrow;
}

}  // namespace eyas
