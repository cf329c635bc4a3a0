#pragma once
#include <cstdint>
#include <cstring>
#include <utility>

#include "eyas/core/bfloat16.hpp"

#ifdef __x86_64__
#include <immintrin.h>

#ifdef __NVCC__
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675  // pragmas that the host's compiler knows
#endif

namespace eyas::detail {

/// f<R>() with R = n, of 1 to the length of the sequence.
template <class F, int... R>
void with_rows(std::int64_t n, std::integer_sequence<int, R...>, const F& f) {
    ((n == R + 1 ? (f.template operator()<R + 1>(), 0) : 0), ...);
}

/// Products of few rows with neighbouring blocks of a NarrowProduct's weight, all inputs in one go:
/// weights are widened on their way into the sums, and two blocks share the latency of their sums.
struct NarrowRows {
    const float* x;     // [in][R]
    const BFloat16* w;  // the blocks' [in][16], behind one another
    float* y;           // [R][stride], 16 a block
    std::int64_t in, stride;
    bool add;

    static constexpr std::int64_t lanes = 16;
    static constexpr std::int64_t most_rows(bool wide) { return wide ? 12 : 6; }

    /// `blocks` of them, for `rows` rows.
    void run(std::int64_t rows, std::int64_t blocks, bool wide) {
        if (wide)
            with_rows(rows, std::make_integer_sequence<int, 12>(), [&]<int R>() {
                for (; blocks >= 2; blocks -= 2) in_512<R, 2>(), skip(2);
                if (blocks > 0) in_512<R, 1>();
            });
        else
            with_rows(rows, std::make_integer_sequence<int, 6>(), [&]<int R>() {
                if constexpr (R <= 2)  // more sums than these have no registers
                    for (; blocks >= 2; blocks -= 2) in_256<R, 2>(), skip(2);
                for (; blocks > 0; --blocks) in_256<R, 1>(), skip(1);
            });
    }

private:
    void skip(std::int64_t blocks) { w += blocks * in * lanes, y += blocks * lanes; }

    // g++ 12 takes what intrinsics without a mask leave undefined for a mistake, and makes five
    // instructions of a conversion of 16 halves that is written without intrinsics.
    static constexpr __mmask16 all = 0xffff;
    typedef std::uint16_t Halves8 __attribute__((vector_size(16)));
    typedef std::uint32_t Words8 __attribute__((vector_size(32)));

    template <int R, int B>
    __attribute__((target("avx512f,avx2"))) void in_512() const {
        __m512 sums[R][B];
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
            for (int b = 0; b < B; ++b)
                sums[r][b] =
                    add ? _mm512_loadu_ps(y + r * stride + b * lanes) : _mm512_setzero_ps();
        for (std::int64_t i = 0; i < in; ++i) {
            __m512 v[B];
#pragma GCC unroll 2
            for (int b = 0; b < B; ++b) {
                __m256i half;
                std::memcpy(&half, w + (b * in + i) * lanes, sizeof half);
                const auto words = _mm512_maskz_cvtepu16_epi32(all, half);
                v[b] = _mm512_castsi512_ps(_mm512_maskz_slli_epi32(all, words, 16));
            }
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r) {
                const auto a = _mm512_set1_ps(x[i * R + r]);
#pragma GCC unroll 2
                for (int b = 0; b < B; ++b) sums[r][b] = _mm512_fmadd_ps(a, v[b], sums[r][b]);
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
            for (int b = 0; b < B; ++b) _mm512_storeu_ps(y + r * stride + b * lanes, sums[r][b]);
    }

    template <int R, int B>
    __attribute__((target("avx2,fma"))) void in_256() const {
        constexpr int H = 2 * B;  // halves of blocks
        constexpr std::int64_t eight = 8;
        __m256 sums[R][H];
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int h = 0; h < H; ++h)
                sums[r][h] =
                    add ? _mm256_loadu_ps(y + r * stride + h * eight) : _mm256_setzero_ps();
        for (std::int64_t i = 0; i < in; ++i) {
            __m256 v[H];
#pragma GCC unroll 4
            for (int h = 0; h < H; ++h) {
                Halves8 half;
                std::memcpy(&half, w + (h / 2 * in + i) * lanes + h % 2 * eight, sizeof half);
                const Words8 bits = __builtin_convertvector(half, Words8) << 16;
                std::memcpy(&v[h], &bits, sizeof bits);
            }
#pragma GCC unroll 6
            for (int r = 0; r < R; ++r) {
                const auto a = _mm256_broadcast_ss(x + i * R + r);
#pragma GCC unroll 4
                for (int h = 0; h < H; ++h) sums[r][h] = _mm256_fmadd_ps(a, v[h], sums[r][h]);
            }
        }
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int h = 0; h < H; ++h) _mm256_storeu_ps(y + r * stride + h * eight, sums[r][h]);
    }
};

}  // namespace eyas::detail

#ifdef __NVCC__
#pragma nv_diagnostic pop
#endif
#endif
