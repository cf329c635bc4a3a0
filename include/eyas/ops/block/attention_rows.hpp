#pragma once
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>

#include "eyas/device/block.hpp"
#include "eyas/ops/attention_backward.hpp"

namespace eyas::detail {

constexpr int attention_threads = 128;
constexpr int most_diagonals = 16;  // later steps whose own key a row sees

/// What the kernels of a strip of query rows [begin, begin + rows) see of a TttAttention. Tiles are
/// [B*H, rows, ld] with columns [0, begin + rows) in use; a block has one row of one (batch, head).
template <class T>
struct AttentionStrip {
    std::int64_t batch, tokens, heads, members, head_dim, step;  // members: heads of a key's group
    const std::int64_t *mask, *document;
    const T* q;
    std::int64_t q_stride;
    const T *k[most_diagonals], *v[most_diagonals];  // of steps 1 .. step
    std::int64_t kv_stride, begin, rows, ld;
    float scale;

    AttentionStrip(const TttAttention<T>& a, std::int64_t first, std::int64_t n,
                   std::int64_t stride)
        : batch(a.batch),
          tokens(a.tokens),
          heads(a.heads),
          members(a.heads / a.kv_heads),
          head_dim(a.head_dim),
          step(a.step),
          mask(a.mask),
          document(a.document),
          q(a.q),
          q_stride(a.q_stride),
          k{},
          v{},
          kv_stride(a.kv_stride),
          begin(first),
          rows(n),
          ld(stride),
          scale(a.scale()) {
        for (std::int64_t j = 1; j <= step; ++j) k[j - 1] = a.k[j], v[j - 1] = a.v[j];
    }

    std::int64_t end() const { return begin + rows; }
    std::int64_t tasks() const { return batch * heads; }

    /// Of tile row `i` (task * rows + r): its task, position, row of q and k, and the position
    /// where its document begins.
    struct Place {
        std::int64_t task, t, row, head, kv;  // head, kv: first element of a row's head
        std::int64_t first;
    };
    EYAS_HD Place place(std::int64_t i) const {
        Place p;
        p.task = i / rows;
        p.t = begin + i % rows;
        p.row = p.task / heads * tokens + p.t;
        p.head = p.task % heads * head_dim;
        p.kv = p.task % heads / members * head_dim;
        p.first = document ? document[p.row] : 0;
        return p;
    }
    EYAS_HD bool sees(const Place& p, std::int64_t c) const {
        return p.first <= c && c <= p.t && mask[p.task / heads * tokens + c] != 0;
    }
    EYAS_HD float rounded(float x) const { return static_cast<float>(T(x)); }
    EYAS_HD float score(float raw) const { return rounded(rounded(raw) * scale); }
};

/// A row's dot products with its own key (or value) of each later step, 8 threads a product.
struct Diagonals {
    float partial[attention_threads], dot[most_diagonals], other[most_diagonals];
};
template <class T, class B>
EYAS_HD void diagonal_dots(B& block, const AttentionStrip<T>& s, const T* x, const T* const* y,
                           std::int64_t row, std::int64_t kv, float (&partial)[attention_threads],
                           float (&out)[most_diagonals]) {
    if (s.step == 0) return;
    block.each([&](int t) {
        const auto j = t / 8;
        float sum = 0;
        if (j < s.step)
            for (std::int64_t e = t % 8; e < s.head_dim; e += 8)
                sum +=
                    static_cast<float>(x[e]) * static_cast<float>(y[j][row * s.kv_stride + kv + e]);
        partial[t] = sum;
    });
    block.each([&](int t) {
        if (t >= s.step) return;
        float sum = 0;
        for (int lane = 0; lane < 8; ++lane) sum += partial[t * 8 + lane];
        out[t] = sum;
    });
}

/// Raw scores of a row become probabilities rounded to T (in `p`; the same memory where T is
/// float), those of the diagonal in `diagonal` [B*H, rows, 16]; writes log_sum [B, H, T].
template <class T>
struct AttentionSoftmaxRow {
    using Shared = Diagonals;
    static constexpr int most_threads = attention_threads;
    AttentionStrip<T> s;
    float* scores;
    T* p;
    float *diagonal, *log_sum;

    template <class B>
    EYAS_HD void operator()(B& block, Shared& shared) const {
        const auto at = s.place(block.index());
        const auto end = s.begin + s.rows;
        float* row = scores + block.index() * s.ld;
        diagonal_dots(block, s, s.q + at.row * s.q_stride + at.head, s.k, at.row, at.kv,
                      shared.partial, shared.dot);
        const float top = block.template reduce<float>(
            [&](int t) {
                float best = -std::numeric_limits<float>::infinity();
                for (std::int64_t c = t; c < end; c += block.threads()) {
                    if (!s.sees(at, c)) continue;
                    row[c] = s.score(row[c]);
                    if (row[c] > best) best = row[c];
                }
                if (t < s.step) {
                    shared.dot[t] = s.score(shared.dot[t]);
                    if (shared.dot[t] > best) best = shared.dot[t];
                }
                return best;
            },
            Larger{});
        const bool none = top == -std::numeric_limits<float>::infinity();
        const float sum = block.template reduce<float>(
            [&](int t) {
                float part = 0;
                for (std::int64_t c = t; c < end; c += block.threads())
                    part += row[c] = !none && s.sees(at, c) ? exp_fast(row[c] - top) : 0.f;
                if (t < s.step) part += shared.dot[t] = none ? 0.f : exp_fast(shared.dot[t] - top);
                return part;
            },
            Add{});
        const float inverse = none ? 0.f : 1.f / sum;
        block.each([&](int t) {
            for (std::int64_t c = t; c < end; c += block.threads())
                p[block.index() * s.ld + c] = T(row[c] * inverse);
            if (t < s.step)
                diagonal[block.index() * most_diagonals + t] = s.rounded(shared.dot[t] * inverse);
            if (t == 0)
                log_sum[at.task * s.tokens + at.t] =
                    none ? std::numeric_limits<float>::infinity() : top + std::log(sum);
        });
    }
};

/// out = product + the diagonal's values, as the reference rounds them; product [B*H, rows, E].
template <class T>
struct AttentionOutputCell {
    AttentionStrip<T> s;
    const float *product, *diagonal;
    T* out;
    std::int64_t out_stride;

    EYAS_HD void operator()(std::int64_t i, std::int64_t e) const {
        const auto at = s.place(i);
        float o = product[i * s.head_dim + e];
        for (std::int64_t j = 0; j < s.step; ++j)
            o = s.rounded(s.rounded(o) +
                          s.rounded(diagonal[i * most_diagonals + j] *
                                    static_cast<float>(s.v[j][at.row * s.kv_stride + at.kv + e])));
        out[at.row * out_stride + at.head + e] = T(o);
    }
};

/// Raw scores become probabilities again (p), and the gradients at the probabilities (dp) those at
/// the raw scores (ds), rounded to T, which is the same memory where T is float; those of the
/// diagonal stay fp32.
template <class T>
struct AttentionBackwardRow {
    using Shared = Diagonals;
    static constexpr int most_threads = attention_threads;
    AttentionStrip<T> s;
    const float* log_sum;
    const T* d_out;
    std::int64_t d_out_stride;
    float *scores, *dp;
    T *p, *ds;
    DiagonalColumns diagonal;

    template <class B>
    EYAS_HD void operator()(B& block, Shared& shared) const {
        const auto at = s.place(block.index());
        const auto end = s.begin + s.rows;
        float *row = scores + block.index() * s.ld, *d = dp + block.index() * s.ld;
        const float normaliser = log_sum[at.task * s.tokens + at.t];
        diagonal_dots(block, s, s.q + at.row * s.q_stride + at.head, s.k, at.row, at.kv,
                      shared.partial, shared.dot);
        diagonal_dots(block, s, d_out + at.row * d_out_stride + at.head, s.v, at.row, at.kv,
                      shared.partial, shared.other);
        const float delta = block.template reduce<float>(
            [&](int t) {
                float sum = 0;
                for (std::int64_t c = t; c < end; c += block.threads()) {
                    row[c] = s.sees(at, c) ? exp_fast(s.score(row[c]) - normaliser) : 0.f;
                    sum += row[c] * d[c];
                }
                if (t < s.step) {
                    shared.dot[t] = exp_fast(s.score(shared.dot[t]) - normaliser);
                    sum += shared.dot[t] * shared.other[t];
                }
                return sum;
            },
            Add{});
        block.each([&](int t) {
            for (std::int64_t c = t; c < end; c += block.threads()) {
                const float w = row[c], g = w * (d[c] - delta) * s.scale;
                p[block.index() * s.ld + c] = T(w);
                ds[block.index() * s.ld + c] = T(g);
            }
            if (t >= s.step) return;
            const auto i = (at.task * s.tokens + at.t) * s.step + t;
            diagonal.probabilities[i] = shared.dot[t];
            diagonal.d_scores[i] = shared.dot[t] * (shared.other[t] - delta) * s.scale;
        });
    }
};

/// dq = product + the diagonal's share.
template <class T>
struct AttentionGradientCell {
    AttentionStrip<T> s;
    const float *product, *d_scores;  // d_scores [B, H, T, step]
    T* dq;
    std::int64_t dq_stride;

    EYAS_HD void operator()(std::int64_t i, std::int64_t e) const {
        const auto at = s.place(i);
        const float* ds = d_scores + (at.task * s.tokens + at.t) * s.step;
        float d = product[i * s.head_dim + e];
        for (std::int64_t j = 0; j < s.step; ++j)
            d += ds[j] * static_cast<float>(s.k[j][at.row * s.kv_stride + at.kv + e]);
        dq[at.row * dq_stride + at.head + e] = T(d);
    }
};

/// What the diagonal's keys and values of one row and column [G*E] get from the heads of its group.
template <class T>
struct DiagonalGradientCell {
    std::int64_t tokens, heads, members, head_dim, step;
    const T *q, *d_out;
    std::int64_t q_stride, d_out_stride, width;  // width: G*E
    DiagonalColumns diagonal;
    float *dk[most_diagonals], *dv[most_diagonals];  // of steps 1 .. step

    EYAS_HD void operator()(std::int64_t row, std::int64_t column) const {
        const auto b = row / tokens, t = row % tokens;
        const auto g = column / head_dim, e = column % head_dim;
        for (std::int64_t h = g * members; h < (g + 1) * members; ++h) {
            const float query = static_cast<float>(q[row * q_stride + h * head_dim + e]);
            const float out = static_cast<float>(d_out[row * d_out_stride + h * head_dim + e]);
            const auto at = ((b * heads + h) * tokens + t) * step;
            for (std::int64_t j = 0; j < step; ++j) {
                dk[j][row * width + column] += diagonal.d_scores[at + j] * query;
                dv[j][row * width + column] += diagonal.probabilities[at + j] * out;
            }
        }
    }
};

/// out = sum of a group's slices.
template <class T>
struct ReduceGroupCell {
    const float* slices;
    T* out;
    std::int64_t out_stride, tokens, heads, members, width;
    EYAS_HD void operator()(std::int64_t row, std::int64_t column) const {
        const auto g = column / width, e = column % width;
        const auto b = row / tokens, t = row % tokens;
        float sum = 0;
        for (std::int64_t m = 0; m < members; ++m)
            sum += slices[((b * heads + g * members + m) * tokens + t) * width + e];
        out[row * out_stride + column] = T(sum);
    }
};

}  // namespace eyas::detail
