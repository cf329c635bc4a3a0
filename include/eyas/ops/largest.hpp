#pragma once
#include <bit>
#include <cstdint>

namespace eyas {

namespace detail {
/// Integers in the order of the floats that they stand for (-0 below +0).
inline std::int32_t order_of(float x) {
    const auto bits = std::bit_cast<std::int32_t>(x);
    return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}
inline float from_order(std::int32_t order) {
    return std::bit_cast<float>(order ^ ((order >> 31) & 0x7FFFFFFF));
}
}  // namespace detail

// Floats are compared as integers, for the reason that exp.hpp gives.

/// The largest of x[0..n) that is no NaN; -infinity where there is none.
inline float largest(const float* x, std::int64_t n) {
    constexpr auto infinity = std::int32_t{0x7F800000};
    constexpr auto lowest = std::int32_t{-0x7F800001};  // order_of(-infinity)
    auto top = lowest;
#pragma omp simd reduction(max : top)
    for (std::int64_t j = 0; j < n; ++j) {
        const auto o = detail::order_of(x[j]);
        const auto number = o > infinity ? lowest : o;
        top = top < number ? number : top;
    }
    return detail::from_order(top);
}

/// The first place of `value` in x[0..n); 0 where it is in none (rows that hold NaN).
inline std::int64_t first_of(const float* x, std::int64_t n, float value) {
    constexpr std::int64_t block = 64;
    for (std::int64_t begin = 0; begin < n; begin += block) {
        const auto end = begin + block < n ? begin + block : n;
        int found = 0;
#pragma omp simd reduction(| : found)
        for (std::int64_t j = begin; j < end; ++j) found |= x[j] == value;
        if (!found) continue;
        for (std::int64_t j = begin; j < end; ++j)
            if (x[j] == value) return j;
    }
    return 0;
}

}  // namespace eyas
