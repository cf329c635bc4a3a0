#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "eyas/ops/attention_tile.hpp"
#include "eyas/ops/exp.hpp"
#include "eyas/ops/largest.hpp"

namespace eyas {

namespace detail {
/// Turns scores of row r into their softmax, rounded to T; returns log(sum(exp(scores))), in fp32.
template <class T>
float softmax_row(const AttentionTile& tile, AttentionColumns& p, std::int64_t step,
                  std::int64_t r) {
    float top = -std::numeric_limits<float>::infinity();
    for_each_piece(tile, p, step, r,
                   [&](const float* x, std::int64_t n) { top = std::max(top, largest(x, n)); });
    if (top == -std::numeric_limits<float>::infinity()) {  // no key at all: attend to nothing
        for_each_piece(tile, p, step, r, [](float* x, std::int64_t n) { std::fill_n(x, n, 0.f); });
        return std::numeric_limits<float>::infinity();
    }
    float sum = 0;
    for_each_piece(tile, p, step, r, [&](float* x, std::int64_t n) {
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (std::int64_t c = 0; c < n; ++c) {
            x[c] = exp_fast(x[c] - top);
            part += x[c];
        }
        sum += part;
    });
    const float inverse = 1.f / sum;
    for_each_piece(tile, p, step, r, [&](float* x, std::int64_t n) {
#pragma omp simd
        for (std::int64_t c = 0; c < n; ++c) x[c] = rounded_to<T>(x[c] * inverse);
    });
    return top + std::log(sum);
}

/// Adds the diagonal's values to the tile's sums over keys, and writes the result.
template <class T>
void finish_rows(const TttAttention<T>& a, std::int64_t b, std::int64_t h,
                 const AttentionTile& tile, AttentionScratch& s, T* out, std::int64_t out_stride) {
    const auto width = a.head_dim, kv = a.kv_head(h) * width;
    for (std::int64_t r = 0; r < tile.rows(); ++r) {
        const auto row = b * a.tokens + tile.begin + r;
        float* o = s.out.data() + r * width;
        for (std::int64_t j = 1; j <= a.step; ++j) {
            const float w = s.p.diagonal[static_cast<std::size_t>(r * a.step + j - 1)];
            const T* v = a.v[j] + row * a.kv_stride + kv;
            for (std::int64_t e = 0; e < width; ++e)
                o[e] = rounded_to<T>(rounded_to<T>(o[e]) +
                                     rounded_to<T>(w * static_cast<float>(v[e])));
        }
        T* to = out + row * out_stride + h * width;
        for (std::int64_t e = 0; e < width; ++e) to[e] = T(o[e]);
    }
}
}  // namespace detail

/// Forward. out [B*T, H*E] with rows `out_stride` apart; log_sum [B, H, T] is kept for the
/// backward. Memory beyond the arguments: tiles of 64 query rows per thread, no [T, T] tensor. Time
/// grows with the sum of the documents' squares.
template <class T, Device Dev>
void ttt_attention(const Dev& device, const TttAttention<T>& a, T* out, std::int64_t out_stride,
                   float* log_sum) {
    device.for_each_row(a.batch * a.heads, [&](std::int64_t task) {
        const auto b = task / a.heads, h = task % a.heads;
        auto& s = detail::AttentionScratch::of_thread();
        detail::gather(a, b, h, s);
        for (std::int64_t begin = 0; begin < a.tokens;) {
            const auto tile = detail::attention_tile(a, b, begin);
            detail::attention_scores(device, a, b, h, tile, s);
            for (std::int64_t r = 0; r < tile.rows(); ++r)
                log_sum[task * a.tokens + begin + r] = detail::softmax_row<T>(tile, s.p, a.step, r);
            detail::over_keys(device, tile, s.p, s.v, a.head_dim, s.out.data());
            detail::finish_rows(a, b, h, tile, s, out, out_stride);
            begin = tile.end;
        }
    });
}

}  // namespace eyas
