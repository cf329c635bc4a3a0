#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "eyas/device/sdpa.hpp"
#include "eyas/ops/block/attention_rows.hpp"

namespace eyas::detail {

/// rows[b] = T, keys[b] = the first keys of batch row b, whose mask is 1.
struct SdpaLengths {
    using Shared = NoShared;
    static constexpr int most_threads = row_threads;
    const std::int64_t* mask;
    std::int64_t tokens;
    std::int32_t *rows, *keys;

    template <class B>
    EYAS_HD void operator()(B& block, Shared&) const {
        const auto b = block.index();
        const auto seen = block.template reduce<std::int32_t>(
            [&](int t) {
                std::int32_t n = 0;
                for (std::int64_t s = t; s < tokens; s += block.threads())
                    n += mask[b * tokens + s] != 0;
                return n;
            },
            Add{});
        block.each([&](int t) {
            if (t != 0) return;
            rows[b] = static_cast<std::int32_t>(tokens);
            keys[b] = seen;
        });
    }
};

/// The causal keys' result and log_sum of a row become those of one softmax over them and the
/// diagonal's keys: each part weighs exp(its log_sum - the log_sum of all). s is of all rows.
template <class T>
struct MergeDiagonalRow {
    using Shared = Diagonals;
    static constexpr int most_threads = attention_threads;
    AttentionStrip<T> s;
    T* out;
    std::int64_t out_stride;
    float* log_sum;

    template <class B>
    EYAS_HD void operator()(B& block, Shared& shared) const {
        const auto i = block.index();
        const auto at = s.place(i);
        const auto kv = at.row * s.kv_stride + at.kv;
        diagonal_dots(block, s, s.q + at.row * s.q_stride + at.head, s.k, at.row, at.kv,
                      shared.partial, shared.dot);
        const float top = block.template reduce<float>(
            [&](int t) {
                if (t < s.step) return shared.dot[t] *= s.scale;
                if (t > s.step) return -std::numeric_limits<float>::infinity();
                return shared.partial[0] = log_sum[i];
            },
            Larger{});
        const float sum = block.template reduce<float>(
            [&](int t) {
                if (t > s.step) return 0.f;
                return exp_fast((t < s.step ? shared.dot[t] : shared.partial[0]) - top);
            },
            Add{});
        const float all = top + std::log(sum);
        // Scores become weights once, not at every element; thread `step` has the causal part's.
        block.each([&](int t) {
            if (t < s.step) shared.dot[t] = exp_fast(shared.dot[t] - all);
            if (t == s.step)
                shared.partial[0] = exp_fast(shared.partial[0] - all), log_sum[i] = all;
        });
        block.each([&](int t) {
            T* o = out + at.row * out_stride + at.head;
            const auto n = static_cast<int>(s.head_dim), step = static_cast<int>(s.step);
            for (int e = t; e < n; e += block.threads()) {
                float x = shared.partial[0] * static_cast<float>(o[e]);
                for (int j = 0; j < step; ++j)
                    x += shared.dot[j] * static_cast<float>(s.v[j][kv + e]);
                o[e] = T(x);
            }
        });
    }
};

/// The diagonal's probabilities and the gradients at its scores, and their share of dq.
template <class T>
struct DiagonalBackwardRow {
    using Shared = Diagonals;
    static constexpr int most_threads = attention_threads;
    AttentionStrip<T> s;
    const float* log_sum;
    const T *out, *d_out;
    std::int64_t out_stride, d_out_stride;
    T* dq;
    std::int64_t dq_stride;
    DiagonalColumns diagonal;

    template <class B>
    EYAS_HD void operator()(B& block, Shared& shared) const {
        const auto i = block.index();
        const auto at = s.place(i);
        const T* g = d_out + at.row * d_out_stride + at.head;
        diagonal_dots(block, s, s.q + at.row * s.q_stride + at.head, s.k, at.row, at.kv,
                      shared.partial, shared.dot);
        diagonal_dots(block, s, g, s.v, at.row, at.kv, shared.partial, shared.other);
        const float delta = block.template reduce<float>(
            [&](int t) {
                const T* o = out + at.row * out_stride + at.head;
                float sum = 0;
                for (std::int64_t e = t; e < s.head_dim; e += block.threads())
                    sum += static_cast<float>(g[e]) * static_cast<float>(o[e]);
                return sum;
            },
            Add{});
        block.each([&](int t) {
            if (t >= s.step) return;
            const float p = exp_fast(shared.dot[t] * s.scale - log_sum[i]);
            diagonal.probabilities[i * s.step + t] = p;
            shared.dot[t] = diagonal.d_scores[i * s.step + t] =
                p * (shared.other[t] - delta) * s.scale;
        });
        block.each([&](int t) {
            T* to = dq + at.row * dq_stride + at.head;
            for (std::int64_t e = t; e < s.head_dim; e += block.threads()) {
                float x = static_cast<float>(to[e]);
                for (std::int64_t j = 0; j < s.step; ++j)
                    x += shared.dot[j] *
                         static_cast<float>(s.k[j][at.row * s.kv_stride + at.kv + e]);
                to[e] = T(x);
            }
        });
    }
};

/// slices [B, H, T, E] += from [B*T, G*E], at the first head of each group.
template <class T>
struct AddToSlice {
    const T* from;
    float* slices;
    std::int64_t tokens, heads, members, head_dim, width;
    EYAS_HD void operator()(std::int64_t row, std::int64_t column) const {
        const auto b = row / tokens, t = row % tokens, g = column / head_dim;
        slices[((b * heads + g * members) * tokens + t) * head_dim + column % head_dim] +=
            static_cast<float>(from[row * width + column]);
    }
};

template <class T>
SdpaShape sdpa_shape(const TttAttention<T>& a, std::int64_t out_stride) {
    return {a.batch,    a.tokens,    a.heads,    a.kv_heads, a.head_dim,
            a.q_stride, a.kv_stride, out_stride, a.scale(),  a.leading_keys};
}

/// Of the lengths of each batch row.
template <class Dev>
Tensor sdpa_lengths(const Dev& device, const std::int64_t* mask, std::int64_t batch,
                    std::int64_t tokens, SdpaArrays& arrays) {
    const auto apart = (batch + 3) / 4 * 4;  // libraries want arrays at multiples of 16 bytes
    Tensor lengths(DType::I32, {2 * apart}, device.memory());
    arrays.rows = reinterpret_cast<std::int32_t*>(lengths.mutable_view().data);
    arrays.keys = arrays.rows + apart;
    device.launch(batch, row_threads, SdpaLengths{mask, tokens, arrays.rows, arrays.keys});
    return lengths;
}

/// ttt_attention with the causal keys by the device's library. False: nothing was done.
template <class T, SdpaDevice Dev>
bool sdpa_attention(const Dev& device, const TttAttention<T>& a, T* out, std::int64_t out_stride,
                    float* log_sum) {
    const auto shape = sdpa_shape(a, out_stride);
    if (!device.plans_sdpa(shape)) return false;
    SdpaArrays arrays{a.q, a.k[0], a.v[0], out, log_sum};
    const auto lengths = sdpa_lengths(device, a.mask, a.batch, a.tokens, arrays);
    device.sdpa(shape, arrays);
    if (a.step > 0)
        device.launch(
            a.batch * a.heads * a.tokens, attention_threads,
            MergeDiagonalRow<T>{AttentionStrip<T>(a, 0, a.tokens, 0), out, out_stride, log_sum});
    return true;
}

/// ttt_attention_backward likewise; wants the forward's result.
template <class T, SdpaDevice Dev>
bool sdpa_attention_backward(const Dev& device, const TttAttention<T>& a, const float* log_sum,
                             const T* d_out, std::int64_t d_out_stride, T* dq,
                             std::int64_t dq_stride, float* dk, float* dv,
                             DiagonalColumns diagonal) {
    auto shape = sdpa_shape(a, a.out_stride);
    shape.d_out_stride = d_out_stride, shape.dq_stride = dq_stride;
    if (!a.out || !device.plans_sdpa(shape)) return false;
    const auto width = a.kv_heads * a.head_dim, rows = a.batch * a.tokens;
    Tensor keys(dtype_of<T>, {2 * rows * width}, device.memory());
    // The library's arrays are not const where only one direction writes them.
    SdpaArrays arrays{a.q, a.k[0], a.v[0], const_cast<T*>(a.out), const_cast<float*>(log_sum)};
    arrays.d_out = d_out, arrays.dq = dq;
    arrays.dk = keys.template as<T>().data(), arrays.dv = arrays.dk + rows * width;
    const auto lengths = sdpa_lengths(device, a.mask, a.batch, a.tokens, arrays);
    // Of keys that nobody sees a library need not write anything.
    device.zero(arrays.dk, static_cast<std::size_t>(2 * rows * width) * sizeof(T));
    device.sdpa(shape, arrays);
    for (auto [from, to] : {std::pair(arrays.dk, dk), std::pair(arrays.dv, dv)})
        launch_cells(
            device, rows, width,
            AddToSlice<T>{from, to, a.tokens, a.heads, a.heads / a.kv_heads, a.head_dim, width});
    if (a.step > 0)
        device.launch(
            a.batch * a.heads * a.tokens, attention_threads,
            DiagonalBackwardRow<T>{AttentionStrip<T>(a, 0, a.tokens, 0), log_sum, a.out, d_out,
                                   a.out_stride, d_out_stride, dq, dq_stride, diagonal});
    return true;
}

}  // namespace eyas::detail
