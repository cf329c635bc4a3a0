#pragma once
#include <bit>
#include <cstdint>

namespace eyas {

// Comparisons of floats are made on their bits here, and values selected by masks: compilers that
// honour floating-point traps (g++ without -fno-trapping-math) leave a loop scalar where a float
// comparison selects, or where a branch could skip a float operation.

namespace detail {
/// All bits where it holds, none where not.
constexpr std::uint32_t mask_of(bool b) { return 0u - static_cast<std::uint32_t>(b); }
}  // namespace detail

/// e^x for x <= 88 (and e^88 above), about 1 ulp, written so that compilers vectorise a loop around
/// it (libm's expf is a call per element). Below -87.3 the result is 0 instead of a denormal. NaN
/// stays NaN. Method: x = n ln2 + r with ln2 split in two (Cody and Waite), then a degree-7
/// polynomial on r.
constexpr float exp_fast(float x) {
    constexpr float log2e = 1.44269504088896341f;
    constexpr float ln2_high = 0.693145751953125f, ln2_low = 1.42860682030941723212e-6f;
    constexpr float shifter = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
    constexpr auto most = std::bit_cast<std::int32_t>(88.f);
    constexpr auto infinity = std::int32_t{0x7F800000};
    constexpr auto least = std::bit_cast<std::uint32_t>(-87.3f), minus_infinity = 0xFF800000u;
    const auto bits = std::bit_cast<std::int32_t>(x);  // positive floats are ordered as integers
    const auto too_large = detail::mask_of(bits > most) & detail::mask_of(bits <= infinity);
    const float clamped = std::bit_cast<float>((static_cast<std::uint32_t>(bits) & ~too_large) |
                                               (std::bit_cast<std::uint32_t>(most) & too_large));
    const float shifted = clamped * log2e + shifter;
    const float n = shifted - shifter;
    const float r = (clamped - n * ln2_high) - n * ln2_low;
    float p = 1.f / 5040.f;
    p = p * r + 1.f / 720.f;
    p = p * r + 1.f / 120.f;
    p = p * r + 1.f / 24.f;
    p = p * r + 1.f / 6.f;
    p = p * r + 0.5f;
    p = p * r + 1.f;
    p = p * r + 1.f;
    const auto scale = (std::bit_cast<std::uint32_t>(shifted) - 0x4B400000u + 127u) << 23;
    const auto e = std::bit_cast<std::uint32_t>(p * std::bit_cast<float>(scale));
    // Negative floats from -87.3 (not included) to -infinity are a range of bits; NaNs lie outside.
    const auto vanishes = detail::mask_of(static_cast<std::uint32_t>(bits) - (least + 1u) <=
                                          minus_infinity - (least + 1u));
    return std::bit_cast<float>(e & ~vanishes);
}

}  // namespace eyas
