#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>

#include "eyas/device/block.hpp"
#include "eyas/ops/attention.hpp"
#include "eyas/ops/attention_backward.hpp"
#include "eyas/ops/block/attention_rows.hpp"
#include "eyas/ops/block/attention_sdpa.hpp"

namespace eyas {

namespace detail {

/// Tiles of one strip, in device memory. p and ds lie in the scores' and dp's memory where T is
/// float.
template <class T>
struct AttentionTiles {
    template <class Dev>
    AttentionTiles(const Dev& device, const TttAttention<T>& a, bool backward)
        : rows(strip_rows<Dev>(a)), ld((a.tokens + 7) / 8 * 8) {
        const auto all = a.batch * a.heads * rows;
        const auto make = [&](DType dtype, std::int64_t width) {
            return Tensor(dtype, {all * width}, device.memory());
        };
        scores_ = make(DType::F32, ld), product_ = make(DType::F32, a.head_dim);
        if (backward)
            dp_ = make(DType::F32, ld);
        else
            diagonal_ = make(DType::F32, most_diagonals);
        if constexpr (!std::same_as<T, float>) {
            p_ = make(dtype_of<T>, ld);
            if (backward) ds_ = make(dtype_of<T>, ld);
        }
    }

    /// Query rows of a strip: a tile of all heads has about as many scores as the device says.
    template <class Dev>
    static std::int64_t strip_rows(const TttAttention<T>& a) {
        const auto fit = Dev::attention_tile / (a.batch * a.heads * a.tokens) / 64 * 64;
        return std::min(a.tokens, std::max<std::int64_t>(64, fit));
    }

    float* scores() { return scores_.template as<float>().data(); }
    float* dp() { return dp_.template as<float>().data(); }
    float* product() { return product_.template as<float>().data(); }
    float* diagonal() { return diagonal_.template as<float>().data(); }
    T* p() { return either(scores_, p_); }
    T* ds() { return either(dp_, ds_); }

    std::int64_t rows, ld;

private:
    static T* either(Tensor& wide, Tensor& narrow) {
        if constexpr (std::same_as<T, float>)
            return wide.template as<T>().data();
        else
            return narrow.template as<T>().data();
    }
    Tensor scores_, dp_, product_, diagonal_, p_, ds_;
};

/// The product `one` for every (batch, head), a batch of the products of all groups at a time.
/// `one` says where the first matrices are; those of x are `x_batch` and `x_head` apart, those of c
/// `c_task`; y is a key or value, of which a group of heads has one.
template <class T, BlockDevice Dev>
void product_with_kv(const Dev& device, const AttentionStrip<T>& s, const Matmul<T, float>& one,
                     std::int64_t x_batch, std::int64_t x_head, std::int64_t c_task) {
    const auto groups = s.heads / s.members;
    for (std::int64_t b = 0; b < s.batch; ++b)
        for (std::int64_t m = 0; m < s.members; ++m) {
            BatchedMatmul<T, float> all{one, groups, s.members * x_head, s.head_dim,
                                        s.members * c_task};
            all.each.a += b * x_batch + m * x_head;
            all.each.b += b * s.tokens * s.kv_stride;
            all.each.c += (b * s.heads + m) * c_task;
            device.matmul(all);
        }
}

/// tile = x y^T of a strip: x has a row of all heads a position, y is a key or value of step 0.
template <class T, BlockDevice Dev>
void strip_scores(const Dev& device, const TttAttention<T>& a, const AttentionStrip<T>& s,
                  const T* x, std::int64_t x_stride, const T* y, float* tile) {
    product_with_kv(device, s,
                    Matmul<T, float>{Op::None, Op::Transposed, s.rows, s.end(), s.head_dim,
                                     x + s.begin * x_stride, x_stride, y, a.kv_stride, tile, s.ld},
                    s.tokens * x_stride, s.head_dim, s.rows * s.ld);
}

/// product [B*H, rows, E] = tile y, y a key or value of step 0.
template <class T, BlockDevice Dev>
void strip_product(const Dev& device, const TttAttention<T>& a, const AttentionStrip<T>& s,
                   const T* tile, const T* y, float* product) {
    const auto of_task = s.rows * s.ld;
    product_with_kv(device, s,
                    Matmul<T, float>{Op::None, Op::None, s.rows, s.head_dim, s.end(), tile, s.ld, y,
                                     a.kv_stride, product, s.head_dim},
                    s.heads * of_task, of_task, s.rows * s.head_dim);
}

/// sums [B, H, T, E] += tile^T x, x in rows of all heads.
template <class T, BlockDevice Dev>
void strip_gradient(const Dev& device, const AttentionStrip<T>& s, const T* tile, const T* x,
                    std::int64_t x_stride, float* sums) {
    const auto of_task = s.rows * s.ld, of_head = s.tokens * s.head_dim;
    for (std::int64_t b = 0; b < s.batch; ++b)
        device.matmul(BatchedMatmul<T, float>{
            Matmul<T, float>{Op::Transposed, Op::None, s.end(), s.head_dim, s.rows,
                             tile + b * s.heads * of_task, s.ld,
                             x + (b * s.tokens + s.begin) * x_stride, x_stride,
                             sums + b * s.heads * of_head, s.head_dim, 1.f, 1.f},
            s.heads, of_task, s.head_dim, of_head});
}

}  // namespace detail

/// ttt_attention by strips of query rows: the scores of a strip for all heads are products of the
/// device, a block makes each row's softmax. No [T, T] tensor: a strip's tile is bounded. Where the
/// device has a library that takes the shape, bfloat16 goes there (attention_sdpa.hpp).
template <class T, BlockDevice Dev>
void ttt_attention(const Dev& device, const TttAttention<T>& a, T* out, std::int64_t out_stride,
                   float* log_sum) {
    if constexpr (SdpaDevice<Dev> && std::same_as<T, BFloat16>)
        if (detail::sdpa_attention(device, a, out, out_stride, log_sum)) return;
    detail::AttentionTiles<T> tiles(device, a, false);
    for (std::int64_t begin = 0; begin < a.tokens; begin += tiles.rows) {
        const detail::AttentionStrip<T> s(a, begin, std::min(tiles.rows, a.tokens - begin),
                                          tiles.ld);
        detail::strip_scores(device, a, s, a.q, a.q_stride, a.k[0], tiles.scores());
        device.launch(s.tasks() * s.rows, detail::attention_threads,
                      detail::AttentionSoftmaxRow<T>{s, tiles.scores(), tiles.p(), tiles.diagonal(),
                                                     log_sum});
        detail::strip_product(device, a, s, tiles.p(), a.v[0], tiles.product());
        launch_cells(
            device, s.tasks() * s.rows, a.head_dim,
            detail::AttentionOutputCell<T>{s, tiles.product(), tiles.diagonal(), out, out_stride});
    }
}

template <class T, BlockDevice Dev>
void ttt_attention_backward(const Dev& device, const TttAttention<T>& a, const float* log_sum,
                            const T* d_out, std::int64_t d_out_stride, T* dq,
                            std::int64_t dq_stride, float* dk, float* dv,
                            DiagonalColumns diagonal) {
    if constexpr (SdpaDevice<Dev> && std::same_as<T, BFloat16>)
        if (detail::sdpa_attention_backward(device, a, log_sum, d_out, d_out_stride, dq, dq_stride,
                                            dk, dv, diagonal))
            return;
    detail::AttentionTiles<T> tiles(device, a, true);
    for (std::int64_t begin = 0; begin < a.tokens; begin += tiles.rows) {
        const detail::AttentionStrip<T> s(a, begin, std::min(tiles.rows, a.tokens - begin),
                                          tiles.ld);
        detail::strip_scores(device, a, s, a.q, a.q_stride, a.k[0], tiles.scores());
        detail::strip_scores(device, a, s, d_out, d_out_stride, a.v[0], tiles.dp());
        device.launch(
            s.tasks() * s.rows, detail::attention_threads,
            detail::AttentionBackwardRow<T>{s, log_sum, d_out, d_out_stride, tiles.scores(),
                                            tiles.dp(), tiles.p(), tiles.ds(), diagonal});
        detail::strip_gradient(device, s, tiles.p(), d_out, d_out_stride, dv);
        detail::strip_gradient(device, s, tiles.ds(), a.q, a.q_stride, dk);
        detail::strip_product(device, a, s, tiles.ds(), a.k[0], tiles.product());
        launch_cells(
            device, s.tasks() * s.rows, a.head_dim,
            detail::AttentionGradientCell<T>{s, tiles.product(), diagonal.d_scores, dq, dq_stride});
    }
}

template <class T, BlockDevice Dev>
void ttt_attention_backward_diagonal(const Dev& device, const TttAttention<T>& a,
                                     DiagonalColumns diagonal, const T* d_out,
                                     std::int64_t d_out_stride, float* const* dk,
                                     float* const* dv) {
    const auto width = a.kv_heads * a.head_dim;
    detail::DiagonalGradientCell<T> cell{
        a.tokens, a.heads,    a.heads / a.kv_heads, a.head_dim, a.step,   a.q,
        d_out,    a.q_stride, d_out_stride,         width,      diagonal, {},
        {}};
    for (std::int64_t j = 1; j <= a.step; ++j) cell.dk[j - 1] = dk[j], cell.dv[j - 1] = dv[j];
    launch_cells(device, a.batch * a.tokens, width, cell);
}

template <class T, BlockDevice Dev>
void reduce_kv_gradient(const Dev& device, const TttAttention<T>& a, const float* slices, T* out,
                        std::int64_t out_stride) {
    launch_cells(device, a.batch * a.tokens, a.kv_heads * a.head_dim,
                 detail::ReduceGroupCell<T>{slices, out, out_stride, a.tokens, a.heads,
                                            a.heads / a.kv_heads, a.head_dim});
}

}  // namespace eyas
