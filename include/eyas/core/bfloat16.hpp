#pragma once
#include <bit>
#include <cstdint>

namespace eyas {

/// bfloat16: the upper half of an IEEE binary32. Conversion rounds to nearest, ties to even, and
/// keeps NaN a NaN, as torch and the hardware do.
struct BFloat16 {
    std::uint16_t bits = 0;

    BFloat16() = default;
    constexpr explicit BFloat16(float value) : bits(round(value)) {}
    constexpr explicit operator float() const {
        return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
    }
    friend constexpr bool operator==(BFloat16 a, BFloat16 b) = default;  // same bits

private:
    static constexpr std::uint16_t round(float value) {
        const auto u = std::bit_cast<std::uint32_t>(value);
        if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((u >> 16) | 0x40u);
        return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
    }
};
static_assert(sizeof(BFloat16) == 2);

}  // namespace eyas
