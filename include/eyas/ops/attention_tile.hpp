#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "eyas/device/concept.hpp"

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
    /// The host knows: one document a row, and the keys with mask 1 are its first, at least one.
    bool leading_keys = false;
    /// For the backward, if it is kept: what the forward gave.
    const T* out = nullptr;
    std::int64_t out_stride = 0;

    float scale() const { return 1.f / std::sqrt(static_cast<float>(head_dim)); }
    std::int64_t kv_head(std::int64_t h) const { return h / (heads / kv_heads); }
};

namespace detail {

constexpr std::int64_t attention_rows = 64;   // queries per tile
constexpr std::int64_t attention_keys = 256;  // keys per block of a tile: products stay in cache

/// Query rows [begin, end), at most 64 and all of one document, whose first row is `first`. They
/// see keys [first, end); nothing of another document is ever read for them.
struct AttentionTile {
    std::int64_t first = 0, begin = 0, end = 0;
    std::int64_t rows() const { return end - begin; }
    std::int64_t keys() const { return end - first; }
    std::int64_t blocks() const { return (keys() + attention_keys - 1) / attention_keys; }
    std::int64_t block_keys(std::int64_t i) const {
        return std::min(attention_keys, keys() - i * attention_keys);
    }
    std::int64_t block_first(std::int64_t i) const { return first + i * attention_keys; }
};

/// The tile of batch row b that starts at row `begin`.
template <class T>
AttentionTile attention_tile(const TttAttention<T>& a, std::int64_t b, std::int64_t begin) {
    AttentionTile tile{0, begin, std::min(a.tokens, begin + attention_rows)};
    if (a.document) {
        const auto* at = a.document + b * a.tokens;
        tile.first = at[begin];
        tile.end = std::upper_bound(at + begin, at + tile.end, tile.first) - at;
    }
    return tile;
}

/// Numbers of a tile, one for each query and column: blocks of keys [blocks][rows][256], then the
/// diagonal [rows][step].
struct AttentionColumns {
    std::vector<float> keys, diagonal;

    void resize(std::int64_t tokens, std::int64_t step) {
        keys.resize(static_cast<std::size_t>(key_numbers(tokens)));
        diagonal.resize(static_cast<std::size_t>(attention_rows * step));
    }
    float* block(const AttentionTile& tile, std::int64_t i) {
        return keys.data() + i * tile.rows() * attention_keys;
    }
    float* row(const AttentionTile& tile, std::int64_t i, std::int64_t r) {
        return block(tile, i) + r * attention_keys;
    }
    static std::int64_t key_numbers(std::int64_t tokens) {
        return (tokens + attention_keys - 1) / attention_keys * attention_keys * attention_rows;
    }
};

/// Widened, contiguous copies of one head's tensors, and the tile under way: everything one (batch,
/// head) task needs, in one thread's memory.
struct AttentionScratch {
    std::vector<float> q, k, v;  // [T, E]
    std::vector<float> d_out;    // [T, E] the output's gradient; backward only
    std::vector<float> bias;     // [T] 0 where the attention mask is 1, else -infinity
    std::vector<float> out;      // [rows, E]
    AttentionColumns p, dp;

    /// The calling thread's own.
    static AttentionScratch& of_thread() {
        static thread_local AttentionScratch scratch;
        return scratch;
    }

    /// Of it, on one thread.
    static std::int64_t bytes(std::int64_t tokens, std::int64_t width, std::int64_t step) {
        return 4 * (4 * tokens * width + tokens + attention_rows * width +
                    2 * (AttentionColumns::key_numbers(tokens) + attention_rows * step));
    }
};

template <class T>
void gather_head(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t width,
                 std::vector<float>& to) {
    to.resize(static_cast<std::size_t>(rows * width));
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t j = 0; j < width; ++j)
            to[static_cast<std::size_t>(r * width + j)] = static_cast<float>(from[r * stride + j]);
}

/// Brings query head h of batch row b into the scratch.
template <class T>
void gather(const TttAttention<T>& a, std::int64_t b, std::int64_t h, AttentionScratch& s) {
    const auto width = a.head_dim, kv = a.kv_head(h) * width, first = b * a.tokens;
    gather_head(a.q + first * a.q_stride + h * width, a.q_stride, a.tokens, width, s.q);
    gather_head(a.k[0] + first * a.kv_stride + kv, a.kv_stride, a.tokens, width, s.k);
    gather_head(a.v[0] + first * a.kv_stride + kv, a.kv_stride, a.tokens, width, s.v);
    s.bias.resize(static_cast<std::size_t>(a.tokens));
    for (std::int64_t t = 0; t < a.tokens; ++t)
        s.bias[static_cast<std::size_t>(t)] =
            a.mask[first + t] ? 0.f : -std::numeric_limits<float>::infinity();
    s.out.resize(static_cast<std::size_t>(attention_rows * width));
    for (auto* columns : {&s.p, &s.dp}) columns->resize(a.tokens, a.step);
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

/// Numbers of queries against keys: to = rows [rows, E] times the tile's keys [keys, E]^T.
template <Device Dev>
void against_keys(const Dev& device, const AttentionTile& tile, const float* rows,
                  const std::vector<float>& keys, std::int64_t width, AttentionColumns& to) {
    for (std::int64_t i = 0; i < tile.blocks(); ++i)
        device.matmul(Matmul<float, float>{Op::None, Op::Transposed, tile.rows(),
                                           tile.block_keys(i), width, rows, width,
                                           keys.data() + tile.block_first(i) * width, width,
                                           to.block(tile, i), attention_keys, 1.f, 0.f});
}

/// Sums over keys: to [rows, E] = numbers times the tile's keys [keys, E].
template <Device Dev>
void over_keys(const Dev& device, const AttentionTile& tile, AttentionColumns& numbers,
               const std::vector<float>& keys, std::int64_t width, float* to) {
    for (std::int64_t i = 0; i < tile.blocks(); ++i)
        device.matmul(Matmul<float, float>{
            Op::None, Op::None, tile.rows(), width, tile.block_keys(i), numbers.block(tile, i),
            attention_keys, keys.data() + tile.block_first(i) * width, width, to, width, 1.f,
            i == 0 ? 0.f : 1.f});
}

/// Raw scores of the tile, masked to -inf, in s.p.
template <class T, Device Dev>
void attention_scores(const Dev& device, const TttAttention<T>& a, std::int64_t b, std::int64_t h,
                      const AttentionTile& tile, AttentionScratch& s) {
    const auto width = a.head_dim, kv = a.kv_head(h) * width;
    const float scale = a.scale();
    against_keys(device, tile, s.q.data() + tile.begin * width, s.k, width, s.p);
    for (std::int64_t i = 0; i < tile.blocks(); ++i)
        for (std::int64_t r = 0; r < tile.rows(); ++r) {
            const auto n = tile.block_keys(i), first = tile.block_first(i);
            const auto seen = std::clamp<std::int64_t>(tile.begin + r + 1 - first, 0, n);
            const float* bias = s.bias.data() + first;
            float* p = s.p.row(tile, i, r);
#pragma omp simd
            for (std::int64_t c = 0; c < seen; ++c)
                p[c] = rounded_to<T>(rounded_to<T>(p[c]) * scale) + bias[c];
            std::fill(p + seen, p + n, -std::numeric_limits<float>::infinity());
        }
    for (std::int64_t r = 0; r < tile.rows(); ++r) {
        const auto t = tile.begin + r, row = b * a.tokens + t;
        for (std::int64_t j = 1; j <= a.step; ++j)
            s.p.diagonal[static_cast<std::size_t>(r * a.step + j - 1)] =
                rounded_to<T>(rounded_to<T>(dot_wide(s.q.data() + t * width,
                                                     a.k[j] + row * a.kv_stride + kv, width)) *
                              scale);
    }
}

/// Calls f(numbers, n) for each contiguous piece of row r of the tile.
template <class F>
void for_each_piece(const AttentionTile& tile, AttentionColumns& columns, std::int64_t step,
                    std::int64_t r, const F& f) {
    for (std::int64_t i = 0; i < tile.blocks(); ++i) f(columns.row(tile, i, r), tile.block_keys(i));
    if (step > 0) f(columns.diagonal.data() + r * step, step);
}

}  // namespace detail

}  // namespace eyas
