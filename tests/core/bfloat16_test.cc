#include "eyas/core/bfloat16.hpp"

#include <array>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <limits>

using namespace eyas;

namespace {
/// The magnitude that 15 bits of bfloat16 stand for, from the definition of the format: 8 exponent
/// bits, 7 fraction bits. 0x7f80 (infinity) yields 2^128, the next value if there were one.
double magnitude(std::uint32_t bits) {
    const int exponent = static_cast<int>(bits >> 7), fraction = static_cast<int>(bits & 0x7f);
    return exponent == 0 ? std::ldexp(fraction, -126 - 7)
                         : std::ldexp(128 + fraction, exponent - 127 - 7);
}

/// Round to nearest, ties to even, decided by distances in double: exact, since every float and
/// every bfloat16 is a double, and so is the difference of two neighbours.
std::uint16_t nearest(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = u >> 31 << 15, below = (u >> 16) & 0x7fff;
    if (below == 0x7f80) return static_cast<std::uint16_t>(u >> 16);
    const double x = std::abs(static_cast<double>(value));
    const double down = x - magnitude(below), up = magnitude(below + 1) - x;
    const bool go_up = up < down || (up == down && below % 2 == 1);
    return static_cast<std::uint16_t>(sign | (below + go_up));
}
}  // namespace

TEST_CASE("bfloat16 rounds to nearest, ties to even, for every upper half and sign") {
    constexpr std::array<std::uint32_t, 8> lower{0,      1,      0x4000, 0x7fff,
                                                 0x8000, 0x8001, 0xc000, 0xffff};
    int wrong = 0, checked = 0;
    for (std::uint32_t upper = 0; upper < 0x10000; ++upper)
        for (const auto low : lower) {
            const auto value = std::bit_cast<float>(upper << 16 | low);
            if (std::isnan(value)) continue;
            ++checked;
            wrong += BFloat16(value).bits != nearest(value);
        }
    CHECK(wrong == 0);
    CHECK(checked == 8 * 2 * 0x7f80 + 2);  // every finite value, and two infinities
}

TEST_CASE("every bfloat16 survives the way through float") {
    int wrong = 0;
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        BFloat16 b;
        b.bits = static_cast<std::uint16_t>(bits);
        const auto f = static_cast<float>(b);
        if (std::isnan(f))
            wrong += !std::isnan(static_cast<float>(BFloat16(f)));
        else
            wrong += BFloat16(f) != b;
    }
    CHECK(wrong == 0);
}

TEST_CASE("a NaN stays a NaN of its sign, also where its payload lies in the lost half") {
    constexpr std::array<std::uint32_t, 7> nans{0x7f800001, 0x7f80ffff, 0x7fbfffff, 0x7fc00000,
                                                0x7fffffff, 0xff800001, 0xffffffff};
    for (const auto bits : nans) {
        const BFloat16 b(std::bit_cast<float>(bits));
        CAPTURE(bits, b.bits);
        CHECK((b.bits & 0x7f80) == 0x7f80);
        CHECK((b.bits & 0x7f) != 0);
        CHECK((b.bits >> 15) == (bits >> 31));
    }
}

TEST_CASE("bfloat16 overflows to infinity from half a step above the largest value") {
    const float largest = static_cast<float>(BFloat16(0x1.fep127f));
    CHECK(largest == 0x1.fep127f);
    CHECK(static_cast<float>(BFloat16(0x1.fefffep127f)) == largest);
    CHECK(std::isinf(static_cast<float>(BFloat16(0x1.ffp127f))));
    CHECK(BFloat16(-std::numeric_limits<float>::max()).bits == 0xff80);
    CHECK(BFloat16(-0.f).bits == 0x8000);
}
