#pragma once
#include <bit>
#include <cstdint>

#include "eyas/core/dtype.hpp"

namespace eyas {

/// IEEE 754 binary16 as files store it: sign, 5 bits of exponent, 10 of fraction. It is only read:
/// eyas computes and writes in wider types, all of which hold each of its numbers but for
/// bfloat16.
struct Float16 {
    std::uint16_t bits = 0;

    Float16() = default;
    constexpr explicit Float16(std::uint16_t code) : bits(code) {}
    /// Exact; infinities and NaN stay what they are, and zeros keep their sign. Without branches,
    /// and without subnormal floats, which a thread may be set to flush.
    constexpr explicit operator float() const {
        const auto magnitude = static_cast<std::uint32_t>(bits & 0x7fffu) << 13;
        const auto sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
        const auto exponent = magnitude & 0x0f800000u;
        const auto rebased = magnitude + (exponent == 0x0f800000u ? 0x70000000u : 0x38000000u);
        // A subnormal is fraction * 2^-24: one more in the exponent makes it 2^-14 too large.
        const float small = std::bit_cast<float>(magnitude + 0x38800000u) - 0x1p-14f;
        const auto value = exponent == 0 ? std::bit_cast<std::uint32_t>(small) : rebased;
        return std::bit_cast<float>(value | sign);
    }
    friend constexpr bool operator==(Float16 a, Float16 b) = default;  // same bits
};
static_assert(sizeof(Float16) == 2);

template <>
struct dtype_of_t<Float16> {
    static constexpr DType value = DType::F16;
};

}  // namespace eyas
