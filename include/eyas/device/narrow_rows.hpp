#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>

#include "eyas/core/bfloat16.hpp"
#include "eyas/device/narrow_inputs.hpp"

namespace eyas::detail {

/// What multiplies rows with narrow weights.
enum class NarrowKernel {
    Widen256,  // AVX2: weights are widened on their way into the sums
    Widen512,  // AVX-512: the same
    Dots512    // AVX-512 BF16: of pairs of inputs in bfloat16, twice as many products at a time
};

}  // namespace eyas::detail

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

/// Products of few rows with neighbouring blocks of a NarrowProduct's weight, all inputs in one go.
/// Two blocks share the latency of their sums. All kernels add products in the same order.
struct NarrowRows {
    const NarrowPiece* x;  // [pieces][R], as the kernel reads them
    const BFloat16* w;     // the blocks' [in/2][16][2], behind one another
    float* y;              // [R][stride], 16 a block
    std::int64_t in, stride;
    bool add;

    static constexpr std::int64_t lanes = 16;
    static constexpr std::int64_t most_rows(NarrowKernel k) {
        return k == NarrowKernel::Widen256 ? 6 : 12;
    }

    /// `blocks` of them, for `rows` rows.
    void run(std::int64_t rows, std::int64_t blocks, NarrowKernel kernel) {
        if (kernel == NarrowKernel::Widen256)
            with_rows(rows, std::make_integer_sequence<int, 6>(), [&]<int R>() {
                if constexpr (R <= 2)  // more sums than these have no registers
                    for (; blocks >= 2; blocks -= 2) widen_256<R, 2>(), skip(2);
                for (; blocks > 0; --blocks) widen_256<R, 1>(), skip(1);
            });
        else
            with_rows(rows, std::make_integer_sequence<int, 12>(), [&]<int R>() {
                const bool dots = kernel == NarrowKernel::Dots512;
                for (; blocks >= 2; blocks -= 2)
                    dots ? dots_512<R, 2>() : widen_512<R, 2>(), skip(2);
                if (blocks > 0) dots ? dots_512<R, 1>() : widen_512<R, 1>();
            });
    }

private:
    // g++ 12 takes what intrinsics without a mask leave undefined for a mistake.
    static constexpr __mmask16 all = 0xffff;
    typedef std::uint32_t Words8 __attribute__((vector_size(32)));

    void skip(std::int64_t blocks) { w += blocks * in * lanes, y += blocks * lanes; }
    /// The words of pair p of the first block, and those of a later one.
    const BFloat16* pair(std::int64_t p, int block) const {
        return w + (block * in + 2 * p) * lanes;
    }

    template <int R, int B>
    __attribute__((target("avx512f"), always_inline)) void begin_512(__m512 (&sums)[R][B]) const {
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
            for (int b = 0; b < B; ++b)
                sums[r][b] =
                    add ? _mm512_loadu_ps(y + r * stride + b * lanes) : _mm512_setzero_ps();
    }
    template <int R, int B>
    __attribute__((target("avx512f"), always_inline)) void end_512(
        const __m512 (&sums)[R][B]) const {
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
            for (int b = 0; b < B; ++b) _mm512_storeu_ps(y + r * stride + b * lanes, sums[r][b]);
    }

    template <int R, int B>
    __attribute__((target("avx512f"))) void widen_512() const {
        __m512 sums[R][B];
        begin_512(sums);
        for (std::int64_t p = 0; p < in / 2; ++p) {
            const auto* inputs = x + p / 8 * R;
            const auto first = 2 * (p % 8);
            __m512 even[B], odd[B];
#pragma GCC unroll 2
            for (int b = 0; b < B; ++b) {
                const auto words = _mm512_loadu_si512(pair(p, b));
                even[b] = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(-0x10000)));
                odd[b] = _mm512_castsi512_ps(_mm512_maskz_slli_epi32(all, words, 16));
            }
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r) {
                const auto a = _mm512_set1_ps(std::bit_cast<float>(inputs[r].words[first]));
#pragma GCC unroll 2
                for (int b = 0; b < B; ++b) sums[r][b] = _mm512_fmadd_ps(a, even[b], sums[r][b]);
            }
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r) {
                const auto a = _mm512_set1_ps(std::bit_cast<float>(inputs[r].words[first + 1]));
#pragma GCC unroll 2
                for (int b = 0; b < B; ++b) sums[r][b] = _mm512_fmadd_ps(a, odd[b], sums[r][b]);
            }
        }
        end_512(sums);
    }

    /// The instruction adds the product of the upper halves, rounds, adds that of the lower ones
    /// and rounds again, as two fused operations would; it takes subnormal numbers for zero.
    template <int R, int B>
    __attribute__((target("avx512f,avx512bf16"))) void dots_512() const {
        __m512 sums[R][B];
        begin_512(sums);
        for (std::int64_t p = 0; p < in / 2; ++p) {
            const auto* inputs = x + p / 16 * R;
            const auto at = p % 16;
            __m512bh v[B];
#pragma GCC unroll 2
            for (int b = 0; b < B; ++b) std::memcpy(&v[b], pair(p, b), sizeof v[b]);
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r) {
                const auto words = _mm512_set1_epi32(static_cast<int>(inputs[r].words[at]));
                __m512bh a;
                std::memcpy(&a, &words, sizeof a);
#pragma GCC unroll 2
                for (int b = 0; b < B; ++b) sums[r][b] = _mm512_dpbf16_ps(sums[r][b], a, v[b]);
            }
        }
        end_512(sums);
    }

    template <int R, int B>
    __attribute__((target("avx2,fma"))) void widen_256() const {
        constexpr int H = 2 * B;  // halves of blocks
        constexpr std::int64_t eight = 8;
        __m256 sums[R][H];
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int h = 0; h < H; ++h)
                sums[r][h] =
                    add ? _mm256_loadu_ps(y + r * stride + h * eight) : _mm256_setzero_ps();
        for (std::int64_t p = 0; p < in / 2; ++p) {
            const auto* inputs = x + p / 8 * R;
            const auto first = 2 * (p % 8);
            __m256 even[H], odd[H];
#pragma GCC unroll 4
            for (int h = 0; h < H; ++h) {
                Words8 words;
                std::memcpy(&words, pair(p, h / 2) + h % 2 * lanes, sizeof words);
                const Words8 upper_halves = words & 0xffff0000u, lower_halves = words << 16;
                std::memcpy(&even[h], &upper_halves, sizeof even[h]);
                std::memcpy(&odd[h], &lower_halves, sizeof odd[h]);
            }
#pragma GCC unroll 6
            for (int r = 0; r < R; ++r) {
                const auto a = _mm256_set1_ps(std::bit_cast<float>(inputs[r].words[first]));
#pragma GCC unroll 4
                for (int h = 0; h < H; ++h) sums[r][h] = _mm256_fmadd_ps(a, even[h], sums[r][h]);
            }
#pragma GCC unroll 6
            for (int r = 0; r < R; ++r) {
                const auto a = _mm256_set1_ps(std::bit_cast<float>(inputs[r].words[first + 1]));
#pragma GCC unroll 4
                for (int h = 0; h < H; ++h) sums[r][h] = _mm256_fmadd_ps(a, odd[h], sums[r][h]);
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
