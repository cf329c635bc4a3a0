#pragma once
#include <algorithm>
#include <cstdint>

#include "eyas/ops/attention.hpp"

namespace eyas {

namespace detail {

/// p of the tile becomes the probabilities again, from the scores and the saved log-sums.
inline void probabilities_from(const float* log_sum, std::int64_t rows, std::int64_t columns,
                               float* p) {
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t c = 0; c < columns; ++c)
            p[r * columns + c] = exp_fast(p[r * columns + c] - log_sum[r]);
}

/// dp becomes the gradient of the raw scores: p * (dp - sum(p * dp)) * scale, row by row.
inline void softmax_backward(const float* p, float* dp, std::int64_t rows, std::int64_t columns,
                             float scale) {
    for (std::int64_t r = 0; r < rows; ++r) {
        const float* pr = p + r * columns;
        float* d = dp + r * columns;
        const float delta = dot(pr, d, columns);
        for (std::int64_t c = 0; c < columns; ++c) d[c] = pr[c] * (d[c] - delta) * scale;
    }
}

}  // namespace detail

/// Backward of ttt_attention at the same step. `d_out` [B*T, H*E] with rows `d_out_stride` apart;
/// `dq` [B*T, H*E] is written, rows `dq_stride` apart. `dk[j]`, `dv[j]` [B, H, T, E] fp32 for j = 0
/// .. step are added to: one slice per query head, so that heads never share memory; sum them over
/// the group with reduce_kv_gradient once every step that used k_j and v_j has run.
template <class T, Device Dev>
void ttt_attention_backward(const Dev& device, const TttAttention<T>& a, const float* log_sum,
                            const T* d_out, std::int64_t d_out_stride, T* dq,
                            std::int64_t dq_stride, float* const* dk, float* const* dv) {
    device.for_each_row(a.batch * a.heads, [&](std::int64_t task) {
        const auto b = task / a.heads, h = task % a.heads;
        const auto width = a.head_dim, kv = a.kv_head(h) * width, first = b * a.tokens;
        static thread_local detail::AttentionScratch s;
        static thread_local std::vector<float> d_o;
        s.resize(a.tokens, width, a.tokens + a.step);
        d_o.resize(s.q.size());
        detail::gather_head(a.q + first * a.q_stride + h * width, a.q_stride, a.tokens, width,
                            s.q.data());
        detail::gather_head(a.k[0] + first * a.kv_stride + kv, a.kv_stride, a.tokens, width,
                            s.k.data());
        detail::gather_head(a.v[0] + first * a.kv_stride + kv, a.kv_stride, a.tokens, width,
                            s.v.data());
        detail::gather_head(d_out + first * d_out_stride + h * width, d_out_stride, a.tokens, width,
                            d_o.data());
        const auto slice = task * a.tokens * width;
        for (std::int64_t begin = 0; begin < a.tokens;) {
            const auto tile = detail::attention_tile(a, b, begin);
            const auto rows = tile.rows(), keys = tile.keys(), columns = keys + a.step;
            const auto first_key = tile.first * width;
            const float* g = d_o.data() + begin * width;
            detail::attention_scores(device, a, b, h, tile, s);
            detail::probabilities_from(log_sum + task * a.tokens + begin, rows, columns,
                                       s.p.data());
            device.matmul(Matmul<float, float>{Op::None, Op::Transposed, rows, keys, width, g,
                                               width, s.v.data() + first_key, width, s.dp.data(),
                                               columns, 1.f, 0.f});
            for (std::int64_t r = 0; r < rows; ++r)
                for (std::int64_t j = 1; j <= a.step; ++j)
                    s.dp[static_cast<std::size_t>(r * columns + keys + j - 1)] = detail::dot_wide(
                        g + r * width, a.v[j] + (first + begin + r) * a.kv_stride + kv, width);
            device.matmul(Matmul<float, float>{Op::Transposed, Op::None, keys, width, rows,
                                               s.p.data(), columns, g, width,
                                               dv[0] + slice + first_key, width, 1.f, 1.f});
            detail::softmax_backward(s.p.data(), s.dp.data(), rows, columns, a.scale());
            device.matmul(Matmul<float, float>{Op::None, Op::None, rows, width, keys, s.dp.data(),
                                               columns, s.k.data() + first_key, width, s.out.data(),
                                               width, 1.f, 0.f});
            device.matmul(Matmul<float, float>{Op::Transposed, Op::None, keys, width, rows,
                                               s.dp.data(), columns, s.q.data() + begin * width,
                                               width, dk[0] + slice + first_key, width, 1.f, 1.f});
            for (std::int64_t r = 0; r < rows; ++r) {
                const auto t = begin + r, row = first + t;
                float* d_query = s.out.data() + r * width;
                for (std::int64_t j = 1; j <= a.step; ++j) {
                    const auto at = static_cast<std::size_t>(r * columns + keys + j - 1);
                    const float ds = s.dp[at], w = s.p[at];
                    const T* k = a.k[j] + row * a.kv_stride + kv;
                    float* d_key = dk[j] + slice + t * width;
                    float* d_value = dv[j] + slice + t * width;
                    for (std::int64_t e = 0; e < width; ++e) {
                        d_query[e] += ds * static_cast<float>(k[e]);
                        d_key[e] += ds * s.q[static_cast<std::size_t>(t * width + e)];
                        d_value[e] += w * g[r * width + e];
                    }
                }
                T* to = dq + row * dq_stride + h * width;
                for (std::int64_t e = 0; e < width; ++e) to[e] = T(d_query[e]);
            }
            begin = tile.end;
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
