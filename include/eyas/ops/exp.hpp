#pragma once
#include <bit>
#include <cstdint>

namespace eyas {

/// e^x for x in [-inf, 88], about 1 ulp, written so that compilers vectorise a loop around it
/// (libm's expf is a call per element). Below -87.3 the result is 0 instead of a denormal. NaN
/// stays NaN. Method: x = n ln2 + r with ln2 split in two (Cody and Waite), then a degree-7
/// polynomial on r.
constexpr float exp_fast(float x) {
    constexpr float log2e = 1.44269504088896341f;
    constexpr float ln2_high = 0.693145751953125f, ln2_low = 1.42860682030941723212e-6f;
    constexpr float shifter = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
    const float clamped = x < -87.3f ? -87.3f : (x > 88.f ? 88.f : x);
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
    const auto bits = (std::bit_cast<std::uint32_t>(shifted) - 0x4B400000u + 127u) << 23;
    return x < -87.3f ? 0.f : p * std::bit_cast<float>(bits);
}

}  // namespace eyas
