#pragma once
#ifdef __FMA__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "eyas/ops/cached_rows.hpp"

#ifdef __NVCC__
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675  // pragmas that the host's compiler knows
#endif

namespace eyas::detail {

/// Eight numbers that are computed with together.
using Lanes = float __attribute__((vector_size(32)));

/// sum += x v. Fused wherever the processor can: left to itself a compiler fuses in one kernel and
/// not in another (g++ avoids chains of fused operations on some processors), and a number would
/// depend on which kernel computed it.
inline void multiply_add(Lanes& sum, float x, const Lanes& v) {
#ifdef __FMA__
    sum = _mm256_fmadd_ps(_mm256_set1_ps(x), v, sum);
#else
    sum += x * v;
#endif
}

inline void load(Lanes& to, const float* from) { std::memcpy(&to, from, sizeof to); }
inline void store(const Lanes& from, float* to) { std::memcpy(to, &from, sizeof from); }

/// Queries of a tile against one block of keys: to[p][0..16) = q[p] k. P queries share each load.
template <int P>
void score_block(const float* const* q, const float* keys, std::int64_t width, float* const* to) {
    Lanes sums[P][2] = {};
    for (std::int64_t e = 0; e < width; ++e) {
        Lanes left, right;
        load(left, keys + e * key_block), load(right, keys + e * key_block + 8);
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) {
            multiply_add(sums[p][0], q[p][e], left);
            multiply_add(sums[p][1], q[p][e], right);
        }
    }
    for (int p = 0; p < P; ++p) store(sums[p][0], to[p]), store(sums[p][1], to[p] + 8);
}

/// Adds weights[p][j] v[j] of keys j in [0, n), for numbers [e, e + 8 C) of out[p], in the order of
/// the keys. P C sums are under way at a time.
template <int P, int C>
void add_eights(const float* const* weights, const float* values, std::int64_t n,
                std::int64_t width, float* const* out, std::int64_t e) {
    Lanes sums[P][C];
    for (int p = 0; p < P; ++p)
        for (std::int64_t c = 0; c < C; ++c) load(sums[p][c], out[p] + e + 8 * c);
    for (std::int64_t j = 0; j < n; ++j) {
        Lanes v[C];
#pragma GCC unroll 8
        for (std::int64_t c = 0; c < C; ++c) load(v[c], values + j * width + e + 8 * c);
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
            for (std::int64_t c = 0; c < C; ++c) multiply_add(sums[p][c], weights[p][j], v[c]);
    }
    for (int p = 0; p < P; ++p)
        for (std::int64_t c = 0; c < C; ++c) store(sums[p][c], out[p] + e + 8 * c);
}

/// The same for out[p] [E]. Numbers that fill no eight are widened to some.
template <int P>
void add_values(const float* const* weights, const float* values, std::int64_t n,
                std::int64_t width, float* const* out) {
    constexpr std::int64_t lanes = 8;
    constexpr int most = P > 2 ? 2 : 8 / P;
    if (n == 0) return;
    std::int64_t e = 0;
    for (; e + most * lanes <= width; e += most * lanes)
        add_eights<P, most>(weights, values, n, width, out, e);
    for (; e + lanes <= width; e += lanes) add_eights<P, 1>(weights, values, n, width, out, e);
    if (e == width) return;
    float rest[key_block * lanes] = {}, sums[P][lanes] = {};
    float* to[P];
    for (std::int64_t j = 0; j < n; ++j)
        std::copy_n(values + j * width + e, width - e, rest + j * lanes);
    for (int p = 0; p < P; ++p) to[p] = std::copy_n(out[p] + e, width - e, sums[p]) - (width - e);
    add_eights<P, 1>(weights, rest, n, lanes, to, 0);
    for (int p = 0; p < P; ++p) std::copy_n(sums[p], width - e, out[p] + e);
}

/// f(first, count) for pieces of four queries, then for what is left: f is called with a
/// compile-time count, f.template operator()<P>(first).
template <class F>
void in_fours(std::int64_t n, const F& f) {
    std::int64_t i = 0;
    for (; i + 4 <= n; i += 4) f.template operator()<4>(i);
    if (n - i == 3) f.template operator()<3>(i);
    if (n - i == 2) f.template operator()<2>(i);
    if (n - i == 1) f.template operator()<1>(i);
}

}  // namespace eyas::detail

#ifdef __NVCC__
#pragma nv_diagnostic pop
#endif
