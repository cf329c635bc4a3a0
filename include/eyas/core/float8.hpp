#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include "eyas/core/tensor.hpp"

namespace eyas {

/// The largest number that float8_e4m3fn has: sign, 4 bits of exponent (bias 7), 3 of mantissa, no
/// infinity, NaN where all of exponent and mantissa are set.
inline constexpr float e4m3_largest = 448;

namespace detail {
// a where the condition holds, else b: with masks, since compilers make branches of choices between
// floating-point results, and loops with branches stay scalar.
constexpr std::uint32_t choose(bool condition, std::uint32_t a, std::uint32_t b) {
    const auto mask = -static_cast<std::uint32_t>(condition);
    return (a & mask) | (b & ~mask);
}
}  // namespace detail

/// The nearest code, ties to even; what lies beyond 448 becomes 448, NaN stays NaN.
constexpr std::uint8_t to_e4m3(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value), magnitude = bits & 0x7fffffffu;
    // From 2^-6 on: round the mantissa to 3 bits, take another bias.
    const auto normal = ((magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20) - (120u << 3);
    // Below, codes count 2^-9, which is what the last bit of a float near 2^14 counts.
    const auto small = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0x1p14f) -
                       std::bit_cast<std::uint32_t>(0x1p14f);
    const auto capped = detail::choose(normal > 0x7eu, 0x7eu, normal);
    const auto nearest = detail::choose(magnitude < (121u << 23), small, capped);
    const auto code = detail::choose(magnitude > 0x7f800000u, 0x7fu, nearest);
    return static_cast<std::uint8_t>(code | ((bits >> 24) & 0x80u));
}

constexpr float from_e4m3(std::uint8_t code) {
    const std::uint32_t magnitude = code & 0x7fu;
    const float small = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-9f;
    const auto bits = detail::choose(magnitude < 8, std::bit_cast<std::uint32_t>(small),
                                     (magnitude << 20) + (120u << 23));
    const auto number = detail::choose(magnitude == 0x7f, 0x7fc00000u, bits);
    return std::bit_cast<float>(number | ((code & 0x80u) << 24));
}

namespace detail {

// One scale: the largest magnitude becomes 448, so nothing saturates. False for NaN or infinity.
template <class T>
bool encode_block(const T* in, std::size_t n, std::uint8_t* codes, float& scale) {
    std::uint32_t top = 0;  // magnitudes of floats sort as their bits do, NaN above all
#pragma omp simd reduction(max : top)
    for (std::size_t i = 0; i < n; ++i)
        top = std::max(top, std::bit_cast<std::uint32_t>(static_cast<float>(in[i])) & 0x7fffffffu);
    if (top >= 0x7f800000u) return false;
    scale = std::max(std::bit_cast<float>(top) / e4m3_largest, std::numeric_limits<float>::min());
    const float by = scale;
#pragma omp simd
    for (std::size_t i = 0; i < n; ++i) codes[i] = to_e4m3(static_cast<float>(in[i]) / by);
    return true;
}

// As BFloat16's constructor, without a branch.
inline std::uint16_t bfloat16_bits(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    const auto nearest = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, nan = (u >> 16) | 0x40u;
    return static_cast<std::uint16_t>(choose((u & 0x7fffffffu) > 0x7f800000u, nan, nearest));
}

template <class T>
void decode_block(const std::uint8_t* codes, std::size_t n, float scale, T* out) {
#pragma omp simd
    for (std::size_t i = 0; i < n; ++i) {
        const float value = from_e4m3(codes[i]) * scale;
        if constexpr (std::is_same_v<T, BFloat16>)
            out[i].bits = bfloat16_bits(value);
        else
            out[i] = value;
    }
}

// Calls f(element type) for what can be encoded.
template <class F>
void with_scalable(DType dtype, const char* where, const F& f) {
    if (dtype == DType::BF16)
        f(BFloat16());
    else if (dtype == DType::F32)
        f(float());
    else
        throw ContractError("no scaled float8 of " + std::string(name_of(dtype)), where,
                            "Pass float32 or bfloat16");
}

}  // namespace detail

/// States as float8 with scales: a tensor [..., D] of float32 or bfloat16 as codes [..., D] and
/// float32 scales [rows, groups], one for each D / groups columns of a row. A number is its code
/// times its scale.
struct ScaledFloat8 {
    Tensor codes, scales;
};

/// Throws DataError for NaN or infinity, ContractError for another dtype or a D that `groups` does
/// not divide.
inline ScaledFloat8 encode_e4m3(const TensorView& t, std::int64_t groups,
                                const std::string& where) {
    const auto width = t.shape.rank() ? t.shape[t.shape.rank() - 1] : 0;
    if (groups < 1 || width < 1 || width % groups != 0)
        throw ContractError(std::to_string(groups) + " groups of " + t.shape.text(), where,
                            "Divide the width evenly");
    const auto n = static_cast<std::size_t>(width / groups);
    const auto blocks = static_cast<std::size_t>(t.elements()) / n;
    ScaledFloat8 out{Tensor(DType::F8E4M3, t.shape),
                     Tensor(DType::F32, {t.elements() / width, groups})};
    auto* codes = reinterpret_cast<std::uint8_t*>(out.codes.mutable_view().data);
    auto scales = out.scales.as<float>();
    detail::with_scalable(t.dtype, where.c_str(), [&](auto element) {
        const auto in = t.as<decltype(element)>();
        for (std::size_t b = 0; b < blocks; ++b)
            if (!detail::encode_block(in.data() + b * n, n, codes + b * n, scales[b]))
                throw DataError("NaN or infinity in row " +
                                    std::to_string(b / static_cast<std::size_t>(groups)),
                                where, "Capture the sample again, or leave it out");
    });
    return out;
}

/// The other way, into float32 or bfloat16 (rounded to nearest even). ContractError where shapes do
/// not belong together.
inline void decode_e4m3(const TensorView& codes, const TensorView& scales,
                        const MutableTensorView& to) {
    const auto all = static_cast<std::size_t>(codes.elements());
    const auto blocks = static_cast<std::size_t>(scales.elements());
    if (codes.dtype != DType::F8E4M3 || !(codes.shape == to.shape) ||
        (blocks == 0 ? all != 0 : all % blocks != 0))
        throw ContractError("codes " + codes.shape.text() + " with scales " + scales.shape.text() +
                                " into " + to.shape.text(),
                            "decode_e4m3", "Pass what encode_e4m3 made");
    const auto n = blocks ? all / blocks : 0;
    const auto* in = reinterpret_cast<const std::uint8_t*>(codes.data);
    const auto scale = scales.as<float>();
    detail::with_scalable(to.dtype, "decode_e4m3", [&](auto element) {
        const auto out = to.as<decltype(element)>();
        for (std::size_t b = 0; b < blocks; ++b)
            detail::decode_block(in + b * n, n, scale[b], out.data() + b * n);
    });
}

}  // namespace eyas
