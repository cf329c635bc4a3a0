#pragma once
#include <cmath>
#include <cstdint>

#include "eyas/device/block.hpp"
#include "eyas/ops/rms_norm.hpp"

namespace eyas {

namespace detail {

/// One row of rms_norm a block.
template <class T>
struct RmsNormRow {
    using Shared = NoShared;
    static constexpr int most_threads = row_threads;
    const T* x;
    std::int64_t x_stride;
    const T* weight;
    T* y;
    std::int64_t y_stride;
    float* inverse_rms;
    std::int64_t width;
    float epsilon;

    template <class B>
    EYAS_HD void operator()(B& block, Shared&) const {
        const auto r = block.index();
        const T* in = x + r * x_stride;
        T* out = y + r * y_stride;
        const float sum = block.template reduce<float>(
            [&](int t) {
                float s = 0;
                for (std::int64_t j = t; j < width; j += block.threads())
                    s += static_cast<float>(in[j]) * static_cast<float>(in[j]);
                return s;
            },
            Add{});
        const float scale = 1.f / std::sqrt(sum / static_cast<float>(width) + epsilon);
        block.each([&](int t) {
            if (t == 0) inverse_rms[r] = scale;
            for (std::int64_t j = t; j < width; j += block.threads())
                out[j] = T(static_cast<float>(weight[j]) *
                           static_cast<float>(T(static_cast<float>(in[j]) * scale)));
        });
    }
};

/// One row of the gradient at the input a block.
template <class T>
struct RmsNormBackwardRow {
    using Shared = NoShared;
    static constexpr int most_threads = row_threads;
    const T* x;
    std::int64_t x_stride;
    const T* weight;
    const T* dy;
    std::int64_t dy_stride;
    T* dx;
    std::int64_t dx_stride;
    const float* inverse_rms;
    std::int64_t width;

    template <class B>
    EYAS_HD void operator()(B& block, Shared&) const {
        const auto r = block.index();
        const T* in = x + r * x_stride;
        const T* g = dy + r * dy_stride;
        T* out = dx + r * dx_stride;
        const float dot = block.template reduce<float>(
            [&](int t) {
                float s = 0;
                for (std::int64_t j = t; j < width; j += block.threads())
                    s += static_cast<float>(g[j]) * static_cast<float>(weight[j]) *
                         static_cast<float>(in[j]);
                return s;
            },
            Add{});
        const float scale = inverse_rms[r];
        const float mean = dot * scale * scale / static_cast<float>(width);
        block.each([&](int t) {
            for (std::int64_t j = t; j < width; j += block.threads()) {
                const float gw = static_cast<float>(g[j]) * static_cast<float>(weight[j]);
                const float d = scale * (gw - static_cast<float>(in[j]) * mean);
                out[j] = T(static_cast<float>(out[j]) + static_cast<float>(T(d)));
            }
        });
    }
};

/// partial[chunk, j] = sum of dy * u over the chunk's rows; a block has a chunk and as many columns
/// as threads.
template <class T>
struct RmsNormWeightPartial {
    using Shared = NoShared;
    static constexpr int most_threads = row_threads;
    static constexpr std::int64_t chunk = 64;
    const T* x;
    std::int64_t x_stride;
    const T* dy;
    std::int64_t dy_stride;
    const float* inverse_rms;
    float* partial;
    std::int64_t rows, width, columns_of_blocks;

    template <class B>
    EYAS_HD void operator()(B& block, Shared&) const {
        const auto c = block.index() / columns_of_blocks;
        const auto first = block.index() % columns_of_blocks * block.threads();
        const auto end = (c + 1) * chunk < rows ? (c + 1) * chunk : rows;
        block.each([&](int t) {
            const auto j = first + t;
            if (j >= width) return;
            float sum = 0;
            for (std::int64_t r = c * chunk; r < end; ++r)
                sum +=
                    static_cast<float>(dy[r * dy_stride + j]) *
                    static_cast<float>(T(static_cast<float>(x[r * x_stride + j]) * inverse_rms[r]));
            partial[c * width + j] = sum;
        });
    }
};

/// to[j] += sum over chunks of partial[chunk, j], in their order.
struct AddChunks {
    const float* partial;
    float* to;
    std::int64_t chunks, width;
    EYAS_HD void operator()(std::int64_t j) const {
        float sum = 0;
        for (std::int64_t c = 0; c < chunks; ++c) sum += partial[c * width + j];
        to[j] += sum;
    }
};

}  // namespace detail

template <class T, BlockDevice Dev>
void rms_norm(const Dev& device, const T* x, std::int64_t x_stride, const T* weight, T* y,
              std::int64_t y_stride, float* inverse_rms, std::int64_t rows, std::int64_t width,
              float epsilon) {
    device.launch(
        rows, detail::row_threads,
        detail::RmsNormRow<T>{x, x_stride, weight, y, y_stride, inverse_rms, width, epsilon});
}

template <class T, BlockDevice Dev>
void rms_norm_backward(const Dev& device, const T* x, std::int64_t x_stride, const T* weight,
                       const T* dy, std::int64_t dy_stride, T* dx, std::int64_t dx_stride,
                       const float* inverse_rms, float* d_weight, std::int64_t rows,
                       std::int64_t width) {
    if (rows == 0) return;
    if (dx)
        device.launch(rows, detail::row_threads,
                      detail::RmsNormBackwardRow<T>{x, x_stride, weight, dy, dy_stride, dx,
                                                    dx_stride, inverse_rms, width});
    using Partial = detail::RmsNormWeightPartial<T>;
    const auto chunks = (rows + Partial::chunk - 1) / Partial::chunk;
    const std::int64_t columns = (width + detail::row_threads - 1) / detail::row_threads;
    Tensor partial(DType::F32, {chunks, width}, device.memory());
    auto* p = reinterpret_cast<float*>(partial.mutable_view().data);
    device.launch(chunks * columns, detail::row_threads,
                  Partial{x, x_stride, dy, dy_stride, inverse_rms, p, rows, width, columns});
    launch_each(device, width, detail::AddChunks{p, d_weight, chunks, width});
}

}  // namespace eyas
