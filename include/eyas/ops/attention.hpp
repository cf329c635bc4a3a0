#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "eyas/device/concept.hpp"
#include "eyas/ops/exp.hpp"

namespace eyas {

/// Shapes and views of EAGLE3's test-time-training attention at TTT step `step`.
/// Row t attends to keys s <= t of step 0 in its document whose attention mask is 1, and to its own
/// key at each later step 1 .. step (the diagonal): up to T + step columns under one fp32 softmax.
/// Sources: EAGLE-3 (arXiv 2503.01840), SpecForge's cached attention. q [B*T, H*E] and out are rows
/// of `q_stride` / `out_stride` elements; k and v are arrays of `step+1` pointers to [B*T, G*E]
/// with rows `kv_stride` apart; query head h reads key/value head h*G/H.
template <class T>
struct TttAttention {
    std::int64_t batch = 0, tokens = 0, heads = 0, kv_heads = 0, head_dim = 0, step = 0;
    const std::int64_t* mask = nullptr;  // [B, T] attention mask
    const T* q = nullptr;
    std::int64_t q_stride = 0;
    const T* const* k = nullptr;
    const T* const* v = nullptr;
    std::int64_t kv_stride = 0;
    const std::int64_t* document = nullptr;  // [B, T] first row of each row's document, ascending;
                                             // null: one a row

    float scale() const { return 1.f / std::sqrt(static_cast<float>(head_dim)); }
    std::int64_t kv_head(std::int64_t h) const { return h / (heads / kv_heads); }
};

namespace detail {

constexpr std::int64_t attention_block = 64;  // query rows per tile

/// Widened, contiguous copies of one head's tensors, and the score tile: everything one (batch,
/// head) task needs, in one thread's memory.
struct AttentionScratch {
    std::vector<float> q, k, v, p, dp, out;
    void resize(std::int64_t tokens, std::int64_t width, std::int64_t block_columns) {
        const auto n = static_cast<std::size_t>(tokens * width);
        q.resize(n), k.resize(n), v.resize(n), out.resize(n);
        p.resize(static_cast<std::size_t>(attention_block * block_columns));
        dp.resize(p.size());
    }
    /// Bytes of it, and of the output's gradient beside it, for `columns` = tokens + step.
    static std::int64_t bytes(std::int64_t tokens, std::int64_t width, std::int64_t columns) {
        return 4 * (5 * tokens * width + 2 * attention_block * columns);
    }
};

/// Query rows [begin, end), at most 64 and all of one document, whose first row is `first`. They
/// see keys [first, end) and nothing of another document is ever read for them.
struct AttentionTile {
    std::int64_t first = 0, begin = 0, end = 0;
    std::int64_t rows() const { return end - begin; }
    std::int64_t keys() const { return end - first; }
};

/// The tile of batch row b that starts at row `begin`.
template <class T>
AttentionTile attention_tile(const TttAttention<T>& a, std::int64_t b, std::int64_t begin) {
    AttentionTile tile{0, begin, std::min(a.tokens, begin + attention_block)};
    if (a.document) {
        const auto* at = a.document + b * a.tokens;
        tile.first = at[begin];
        tile.end = std::upper_bound(at + begin, at + tile.end, tile.first) - at;
    }
    return tile;
}

template <class T>
void gather_head(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t width,
                 float* to) {
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t j = 0; j < width; ++j)
            to[r * width + j] = static_cast<float>(from[r * stride + j]);
}

inline float dot(const float* a, const float* b, std::int64_t n) {
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (std::int64_t j = 0; j < n; ++j) s += a[j] * b[j];
    return s;
}

template <class T>
float dot_wide(const float* a, const T* b, std::int64_t n) {
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (std::int64_t j = 0; j < n; ++j) s += a[j] * static_cast<float>(b[j]);
    return s;
}

/// Rounds to T's precision but stays a float.
template <class T>
float rounded_to(float v) {
    return static_cast<float>(T(v));
}

/// Raw scores of a tile's query rows against its keys, masked to -inf, then the diagonal columns:
/// p [rows, columns], columns = keys + step, row stride `columns`.
template <class T, Device Dev>
void attention_scores(const Dev& device, const TttAttention<T>& a, std::int64_t b, std::int64_t h,
                      const AttentionTile& tile, AttentionScratch& s) {
    const auto rows = tile.rows(), keys = tile.keys(), width = a.head_dim, columns = keys + a.step;
    device.matmul(Matmul<float, float>{
        Op::None, Op::Transposed, rows, keys, width, s.q.data() + tile.begin * width, width,
        s.k.data() + tile.first * width, width, s.p.data(), columns, 1.f, 0.f});
    const auto kv = a.kv_head(h) * width;
    const std::int64_t* mask = a.mask + b * a.tokens + tile.first;
    for (std::int64_t r = 0; r < rows; ++r) {
        const auto t = tile.begin + r, row = b * a.tokens + t;
        float* p = s.p.data() + r * columns;
        for (std::int64_t c = 0; c < keys; ++c)
            p[c] = tile.first + c <= t && mask[c] ? rounded_to<T>(rounded_to<T>(p[c]) * a.scale())
                                                  : -std::numeric_limits<float>::infinity();
        for (std::int64_t j = 1; j <= a.step; ++j)
            p[keys + j - 1] =
                rounded_to<T>(rounded_to<T>(dot_wide(s.q.data() + t * width,
                                                     a.k[j] + row * a.kv_stride + kv, width)) *
                              a.scale());
    }
}

/// Turns a score row into exp(score - log_sum), rounded to T; returns log_sum (fp32 softmax).
template <class T>
float softmax_row(float* p, std::int64_t columns) {
    float top = -std::numeric_limits<float>::infinity();
    for (std::int64_t c = 0; c < columns; ++c) top = std::max(top, p[c]);
    if (top == -std::numeric_limits<float>::infinity()) {  // no key at all: attend to nothing
        std::fill_n(p, columns, 0.f);
        return std::numeric_limits<float>::infinity();
    }
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t c = 0; c < columns; ++c) {
        p[c] = exp_fast(p[c] - top);
        sum += p[c];
    }
    const float inverse = 1.f / sum;
    for (std::int64_t c = 0; c < columns; ++c) p[c] *= inverse;
    return top + std::log(sum);
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
        const auto width = a.head_dim, kv = a.kv_head(h) * width, first = b * a.tokens;
        static thread_local detail::AttentionScratch s;
        s.resize(a.tokens, width, a.tokens + a.step);
        detail::gather_head(a.q + first * a.q_stride + h * width, a.q_stride, a.tokens, width,
                            s.q.data());
        detail::gather_head(a.k[0] + first * a.kv_stride + kv, a.kv_stride, a.tokens, width,
                            s.k.data());
        detail::gather_head(a.v[0] + first * a.kv_stride + kv, a.kv_stride, a.tokens, width,
                            s.v.data());
        for (std::int64_t begin = 0; begin < a.tokens;) {
            const auto tile = detail::attention_tile(a, b, begin);
            const auto rows = tile.rows(), keys = tile.keys(), columns = keys + a.step;
            detail::attention_scores(device, a, b, h, tile, s);
            for (std::int64_t r = 0; r < rows; ++r) {
                float* p = s.p.data() + r * columns;
                log_sum[task * a.tokens + begin + r] = detail::softmax_row<T>(p, columns);
                for (std::int64_t c = 0; c < columns; ++c) p[c] = detail::rounded_to<T>(p[c]);
            }
            device.matmul(Matmul<float, float>{Op::None, Op::None, rows, width, keys, s.p.data(),
                                               columns, s.v.data() + tile.first * width, width,
                                               s.out.data(), width, 1.f, 0.f});
            for (std::int64_t r = 0; r < rows; ++r) {
                const auto row = first + begin + r;
                T* to = out + row * out_stride + h * width;
                float* o = s.out.data() + r * width;
                for (std::int64_t j = 1; j <= a.step; ++j) {
                    const float w = s.p[static_cast<std::size_t>(r * columns + keys + j - 1)];
                    const T* v = a.v[j] + row * a.kv_stride + kv;
                    for (std::int64_t e = 0; e < width; ++e)
                        o[e] = detail::rounded_to<T>(
                            detail::rounded_to<T>(o[e]) +
                            detail::rounded_to<T>(w * static_cast<float>(v[e])));
                }
                for (std::int64_t e = 0; e < width; ++e) to[e] = T(o[e]);
            }
            begin = tile.end;
        }
    });
}

}  // namespace eyas
