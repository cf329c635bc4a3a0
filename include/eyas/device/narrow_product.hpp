#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "eyas/core/bfloat16.hpp"

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace eyas::detail {

/// Products x W^T of a weight W [out, in] that is held in bfloat16, with x, sums and y in fp32:
/// half the bytes of fp32 weights, which is what products of few rows take their time for. W lies
/// in blocks of 16 outputs, [out/16][in][16]. Every number of the result is one chain of fused
/// products, in the order of `in`, whatever rows are multiplied beside it. Callable from any
/// thread.
class NarrowProduct {
public:
    static constexpr std::int64_t lanes = 16;

    NarrowProduct(std::int64_t out, std::int64_t in) : out_(out), in_(in) {}

    /// Whether this processor and these sizes are ones it has kernels for.
    bool supported() const {
#ifdef __x86_64__
        static const bool able = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        return able && out_ % lanes == 0 && out_ > 0 && in_ > 0;
#else
        return false;
#endif
    }

    /// W [out, in], row by row, into its blocks. W must be exact in bfloat16.
    void pack(const float* weight, BFloat16* packed) const {
        for (std::int64_t o = 0; o < out_; ++o)
            for (std::int64_t i = 0; i < in_; ++i)
                packed[(o / lanes * in_ + i) * lanes + o % lanes] = BFloat16(weight[o * in_ + i]);
    }

#ifdef __x86_64__
    /// y [rows, out] = x W^T, or y += x W^T. x [rows, in].
    void multiply(const float* x, const BFloat16* packed, float* y, std::int64_t rows,
                  bool add) const {
        for (; rows > rows_at_once; rows -= rows_at_once) {
            multiply_some(x, packed, y, rows_at_once, add);
            x += rows_at_once * in_, y += rows_at_once * out_;
        }
        multiply_some(x, packed, y, rows, add);
    }

private:
    static constexpr std::int64_t depth = 288;  // of inputs at a time: 18 KiB of widened weights
    static constexpr std::int64_t rows_at_once = 192;  // whose inputs stay in a core's cache

    void multiply_some(const float* x, const BFloat16* packed, float* y, std::int64_t rows,
                       bool add) const {
        static const bool wide = __builtin_cpu_supports("avx512f");
        const Groups groups(rows, wide ? 12 : 6);
        static thread_local std::vector<float> inputs;
        inputs.resize(static_cast<std::size_t>(rows * in_));
        float* by_group = inputs.data();
#pragma omp parallel for schedule(static) if (groups.count > 4)
        for (std::int64_t g = 0; g < groups.count; ++g) gather(x, rows, groups, g, by_group);
#pragma omp parallel for schedule(static)
        for (std::int64_t b = 0; b < out_ / lanes; ++b)
            block(by_group, packed + b * in_ * lanes, y + b * lanes, rows, groups, add, wide);
    }

    /// Rows in groups of at most `most`, as equal as can be: small ones wait for their sums.
    struct Groups {
        std::int64_t count, rows;
        Groups(std::int64_t r, std::int64_t most) : count((r + most - 1) / most), rows(r) {}
        std::int64_t begin(std::int64_t g) const { return g * rows / count; }
        std::int64_t size(std::int64_t g) const { return begin(g + 1) - begin(g); }
    };

    /// The inputs of a group of R rows as its tiles read them: for each `depth` of them [n][R].
    void gather(const float* x, std::int64_t rows, const Groups& groups, std::int64_t g,
                float* to) const {
        const auto first = groups.begin(g), r = groups.size(g);
        for (std::int64_t k = 0; k < in_; k += depth) {
            const auto n = std::min(depth, in_ - k);
            float* out = to + k * rows + first * n;
            for (std::int64_t j = 0; j < r; ++j)
                for (std::int64_t i = 0; i < n; ++i) out[i * r + j] = x[(first + j) * in_ + k + i];
        }
    }

    /// 16 outputs of all rows. Sums lie together meanwhile: rows of y often share cache sets.
    void block(const float* inputs, const BFloat16* packed, float* y, std::int64_t rows,
               const Groups& groups, bool add, bool wide) const {
        alignas(64) float widened[depth * lanes];
        alignas(64) float sums[rows_at_once * lanes];
        for (std::int64_t r = 0; add && r < rows; ++r)
            std::copy_n(y + r * out_, lanes, sums + r * lanes);
        for (std::int64_t k = 0; k < in_; k += depth) {
            const auto n = std::min(depth, in_ - k);
            widen(packed + k * lanes, n, widened);
            for (std::int64_t g = 0; g < groups.count; ++g) {
                const auto first = groups.begin(g);
                const Tile t{inputs + k * rows + first * n, widened, sums + first * lanes, n,
                             add || k > 0};
                if (wide)
                    with_rows(groups.size(g), std::make_integer_sequence<int, 12>(),
                              [&]<int R>() { tile_512<R>(t); });
                else
                    with_rows(groups.size(g), std::make_integer_sequence<int, 6>(),
                              [&]<int R>() { tile_256<R>(t); });
            }
        }
        for (std::int64_t r = 0; r < rows; ++r) std::copy_n(sums + r * lanes, lanes, y + r * out_);
    }

    /// Some rows by 16 outputs, over n inputs.
    struct Tile {
        const float* x;  // [n][R]
        const float* w;  // [n][16]
        float* sums;     // [R][16]
        std::int64_t n;
        bool onto;
    };

    /// f<R>() with R = n, of 1 to the length of the sequence.
    template <class F, int... R>
    static void with_rows(std::int64_t n, std::integer_sequence<int, R...>, const F& f) {
        ((n == R + 1 ? (f.template operator()<R + 1>(), 0) : 0), ...);
    }

    __attribute__((target("avx2"))) static void widen(const BFloat16* from, std::int64_t n,
                                                      float* to) {
        for (std::int64_t i = 0; i < n * lanes; i += 8) {
            const auto half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
            const auto bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), bits);
        }
    }

    template <int R>
    __attribute__((target("avx2,fma"))) static void tile_256(const Tile& t) {
        __m256 left[R], right[R];
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            const float* y = t.sums + r * lanes;
            left[r] = t.onto ? _mm256_loadu_ps(y) : _mm256_setzero_ps();
            right[r] = t.onto ? _mm256_loadu_ps(y + 8) : _mm256_setzero_ps();
        }
        for (std::int64_t i = 0; i < t.n; ++i) {
            const auto a = _mm256_loadu_ps(t.w + i * lanes);
            const auto b = _mm256_loadu_ps(t.w + i * lanes + 8);
#pragma GCC unroll 6
            for (int r = 0; r < R; ++r) {
                const auto v = _mm256_broadcast_ss(t.x + i * R + r);
                left[r] = _mm256_fmadd_ps(v, a, left[r]);
                right[r] = _mm256_fmadd_ps(v, b, right[r]);
            }
        }
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            _mm256_storeu_ps(t.sums + r * lanes, left[r]);
            _mm256_storeu_ps(t.sums + r * lanes + 8, right[r]);
        }
    }

    template <int R>
    __attribute__((target("avx512f"))) static void tile_512(const Tile& t) {
        __m512 sums[R];
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r)
            sums[r] = t.onto ? _mm512_loadu_ps(t.sums + r * lanes) : _mm512_setzero_ps();
        for (std::int64_t i = 0; i < t.n; ++i) {
            const auto w = _mm512_loadu_ps(t.w + i * lanes);
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r)
                sums[r] = _mm512_fmadd_ps(_mm512_set1_ps(t.x[i * R + r]), w, sums[r]);
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) _mm512_storeu_ps(t.sums + r * lanes, sums[r]);
    }
#else
    void multiply(const float*, const BFloat16*, float*, std::int64_t, bool) const {}

private:
#endif

    std::int64_t out_, in_;
};

}  // namespace eyas::detail
