#pragma once
#include <cstdint>

#include "eyas/ops/attention_tile.hpp"
#include "eyas/ops/exp.hpp"

namespace eyas {

namespace detail {

/// s.p of the tile becomes the probabilities again, from the scores and the saved log-sums.
inline void probabilities_from(const float* log_sum, const AttentionTile& tile, std::int64_t step,
                               AttentionScratch& s) {
    for (std::int64_t r = 0; r < tile.rows(); ++r) {
        const float row = log_sum[r];
        for_each_piece(tile, s.p, step, r, [row](float* x, std::int64_t n) {
#pragma omp simd
            for (std::int64_t c = 0; c < n; ++c) x[c] = exp_fast(x[c] - row);
        });
    }
}

/// s.dp becomes the gradient of the raw scores: p * (dp - sum(p * dp)) * scale, row by row.
inline void softmax_backward(const AttentionTile& tile, std::int64_t step, float scale,
                             AttentionScratch& s) {
    for (std::int64_t r = 0; r < tile.rows(); ++r) {
        const float* diagonal = s.p.diagonal.data() + r * step;
        float* d_diagonal = s.dp.diagonal.data() + r * step;
        float delta = dot(diagonal, d_diagonal, step);
        for (std::int64_t i = 0; i < tile.blocks(); ++i)
            delta += dot(s.p.row(tile, i, r), s.dp.row(tile, i, r), tile.block_keys(i));
        const auto differentiate = [&](const float* p, float* d, std::int64_t n) {
#pragma omp simd
            for (std::int64_t c = 0; c < n; ++c) d[c] = p[c] * (d[c] - delta) * scale;
        };
        for (std::int64_t i = 0; i < tile.blocks(); ++i)
            differentiate(s.p.row(tile, i, r), s.dp.row(tile, i, r), tile.block_keys(i));
        differentiate(diagonal, d_diagonal, step);
    }
}

/// Adds to the gradient of keys or values [T, E]: numbers^T times the tile's rows [rows, E].
template <Device Dev>
void add_to_keys(const Dev& device, const AttentionTile& tile, AttentionColumns& numbers,
                 const float* rows, std::int64_t width, float* gradient) {
    for (std::int64_t i = 0; i < tile.blocks(); ++i)
        device.matmul(Matmul<float, float>{Op::Transposed, Op::None, tile.block_keys(i), width,
                                           tile.rows(), numbers.block(tile, i), attention_keys,
                                           rows, width, gradient + tile.block_first(i) * width,
                                           width, 1.f, 1.f});
}

}  // namespace detail

/// What the diagonal columns of one TTT step hand from the first part of the backward to the
/// second: [B, H, T, step] each, the gradients of their scores and their probabilities.
struct DiagonalColumns {
    float* d_scores = nullptr;
    float* probabilities = nullptr;
};

namespace detail {

/// The gradient at the probabilities of the diagonal: that of the output `g` times the values.
template <class T>
void diagonal_values(const TttAttention<T>& a, std::int64_t b, std::int64_t h,
                     const AttentionTile& tile, const float* g, AttentionScratch& s) {
    const auto width = a.head_dim, kv = a.kv_head(h) * width;
    for (std::int64_t r = 0; r < tile.rows(); ++r)
        for (std::int64_t j = 1; j <= a.step; ++j) {
            const auto row = b * a.tokens + tile.begin + r;
            s.dp.diagonal[static_cast<std::size_t>(r * a.step + j - 1)] =
                dot_wide(g + r * width, a.v[j] + row * a.kv_stride + kv, width);
        }
}

/// Adds what the diagonal's keys give to the queries' gradient in s.out, writes it, and hands the
/// diagonal on.
template <class T>
void finish_queries(const TttAttention<T>& a, std::int64_t b, std::int64_t h,
                    const AttentionTile& tile, AttentionScratch& s, T* dq, std::int64_t dq_stride,
                    DiagonalColumns diagonal) {
    const auto width = a.head_dim, kv = a.kv_head(h) * width;
    for (std::int64_t r = 0; r < tile.rows(); ++r) {
        const auto t = tile.begin + r, row = b * a.tokens + t;
        const auto at = ((b * a.heads + h) * a.tokens + t) * a.step;
        float* d_query = s.out.data() + r * width;
        for (std::int64_t j = 1; j <= a.step; ++j) {
            const auto column = static_cast<std::size_t>(r * a.step + j - 1);
            const float ds = diagonal.d_scores[at + j - 1] = s.dp.diagonal[column];
            diagonal.probabilities[at + j - 1] = s.p.diagonal[column];
            const T* k = a.k[j] + row * a.kv_stride + kv;
            for (std::int64_t e = 0; e < width; ++e) d_query[e] += ds * static_cast<float>(k[e]);
        }
        T* to = dq + row * dq_stride + h * width;
        for (std::int64_t e = 0; e < width; ++e) to[e] = T(d_query[e]);
    }
}

}  // namespace detail

/// Backward of ttt_attention at the same step, but for the keys and values of the diagonal
/// (ttt_attention_backward_diagonal). `d_out` [B*T, H*E] with rows `d_out_stride` apart; `dq`
/// [B*T, H*E] is written, rows `dq_stride` apart. `dk`, `dv` [B, H, T, E] fp32, of step 0, are
/// added to: one slice per query head, so that heads never share memory; sum them over the group
/// with reduce_kv_gradient once every step has run. `diagonal` is written.
template <class T, Device Dev>
void ttt_attention_backward(const Dev& device, const TttAttention<T>& a, const float* log_sum,
                            const T* d_out, std::int64_t d_out_stride, T* dq,
                            std::int64_t dq_stride, float* dk, float* dv,
                            DiagonalColumns diagonal) {
    device.for_each_row(a.batch * a.heads, [&](std::int64_t task) {
        const auto b = task / a.heads, h = task % a.heads, width = a.head_dim;
        auto& s = detail::AttentionScratch::of_thread();
        detail::gather(a, b, h, s);
        detail::gather_head(d_out + b * a.tokens * d_out_stride + h * width, d_out_stride, a.tokens,
                            width, s.d_out);
        const auto slice = task * a.tokens * width;
        for (std::int64_t begin = 0; begin < a.tokens;) {
            const auto tile = detail::attention_tile(a, b, begin);
            const float* g = s.d_out.data() + begin * width;
            detail::attention_scores(device, a, b, h, tile, s);
            detail::probabilities_from(log_sum + task * a.tokens + begin, tile, a.step, s);
            detail::against_keys(device, tile, g, s.v, width, s.dp);
            detail::diagonal_values(a, b, h, tile, g, s);
            detail::add_to_keys(device, tile, s.p, g, width, dv + slice);
            detail::softmax_backward(tile, a.step, a.scale(), s);
            detail::over_keys(device, tile, s.dp, s.k, width, s.out.data());
            detail::add_to_keys(device, tile, s.dp, s.q.data() + begin * width, width, dk + slice);
            detail::finish_queries(a, b, h, tile, s, dq, dq_stride, diagonal);
            begin = tile.end;
        }
    });
}

/// The rest of the backward: adds to `dk[j]`, `dv[j]` [B*T, G*E] fp32 for j = 1 .. step, over the
/// query heads of each group in their order.
template <class T, Device Dev>
void ttt_attention_backward_diagonal(const Dev& device, const TttAttention<T>& a,
                                     DiagonalColumns diagonal, const T* d_out,
                                     std::int64_t d_out_stride, float* const* dk,
                                     float* const* dv) {
    device.for_each_row(a.batch * a.tokens, [&](std::int64_t row) {
        const auto b = row / a.tokens, t = row % a.tokens, width = a.head_dim;
        for (std::int64_t h = 0; h < a.heads; ++h) {
            const T* q = a.q + row * a.q_stride + h * width;
            const T* g = d_out + row * d_out_stride + h * width;
            const auto at = ((b * a.heads + h) * a.tokens + t) * a.step;
            const auto kv = (row * a.kv_heads + a.kv_head(h)) * width;
            for (std::int64_t j = 1; j <= a.step; ++j) {
                const float ds = diagonal.d_scores[at + j - 1],
                            w = diagonal.probabilities[at + j - 1];
                float *d_key = dk[j] + kv, *d_value = dv[j] + kv;
                for (std::int64_t e = 0; e < width; ++e) {
                    d_key[e] += ds * static_cast<float>(q[e]);
                    d_value[e] += w * static_cast<float>(g[e]);
                }
            }
        }
    });
}

/// Sums the per-query-head slices [B, H, T, E] of a key or value gradient over each group of query
/// heads: out [B*T, G*E] of T, rows `out_stride` apart.
template <class T, Device Dev>
void reduce_kv_gradient(const Dev& device, const TttAttention<T>& a, const float* slices, T* out,
                        std::int64_t out_stride) {
    const auto batch = a.batch, tokens = a.tokens, heads = a.heads, groups = a.kv_heads,
               width = a.head_dim;
    device.for_each_row(batch * tokens, [=](std::int64_t row) {
        const auto b = row / tokens, t = row % tokens, members = heads / groups;
        for (std::int64_t g = 0; g < groups; ++g)
            for (std::int64_t e = 0; e < width; ++e) {
                float sum = 0;
                for (std::int64_t m = 0; m < members; ++m)
                    sum += slices[((b * heads + g * members + m) * tokens + t) * width + e];
                out[row * out_stride + g * width + e] = T(sum);
            }
    });
}

}  // namespace eyas
