#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "eyas/core/bfloat16.hpp"
#include "eyas/device/narrow_rows.hpp"

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace eyas::detail {

/// Products x W^T of a weight W [out, in] that is held in bfloat16, with x, sums and y in fp32:
/// half the bytes of fp32 weights, which is what products of few rows take their time for. W lies
/// in blocks of 16 outputs, [out/16][in][16]. Every number of the result is one chain of fused
/// products, in the order of `in`, whatever rows are multiplied beside it. Callable from any
/// thread.
class NarrowProduct {
public:
    static constexpr std::int64_t lanes = 16;

    NarrowProduct(std::int64_t out, std::int64_t in) : out_(out), in_(in) {}

    /// Whether this processor and these sizes are ones it has kernels for.
    bool supported() const {
#ifdef __x86_64__
        static const bool able = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        return able && out_ % lanes == 0 && out_ > 0 && in_ > 0;
#else
        return false;
#endif
    }

    /// W [out, in], row by row, into its blocks. W must be exact in bfloat16.
    void pack(const float* weight, BFloat16* packed) const {
        for (std::int64_t o = 0; o < out_; ++o)
            for (std::int64_t i = 0; i < in_; ++i)
                packed[(o / lanes * in_ + i) * lanes + o % lanes] = BFloat16(weight[o * in_ + i]);
    }

#ifdef __x86_64__
    /// y [rows, out] = x W^T, or y += x W^T. x [rows, in].
    void multiply(const float* x, const BFloat16* packed, float* y, std::int64_t rows,
                  bool add) const {
        for (; rows > rows_at_once; rows -= rows_at_once) {
            multiply_some(x, packed, y, rows_at_once, add);
            x += rows_at_once * in_, y += rows_at_once * out_;
        }
        multiply_some(x, packed, y, rows, add);
    }

private:
    static constexpr std::int64_t rows_at_once = 192;  // whose inputs stay in a core's cache
    static constexpr std::int64_t alone = 1 << 16;  // products that take less than to wake others

    void multiply_some(const float* x, const BFloat16* packed, float* y, std::int64_t rows,
                       bool add) const {
        static const bool wide = __builtin_cpu_supports("avx512f");
        const Groups groups(rows, NarrowRows::most_rows(wide));
        static thread_local std::vector<float> inputs;
        inputs.resize(static_cast<std::size_t>(rows * in_));
        float* by_group = inputs.data();
#pragma omp parallel for schedule(static) if (groups.count > 4)
        for (std::int64_t g = 0; g < groups.count; ++g) gather(x, groups, g, by_group);
        const auto blocks = out_ / lanes;
#pragma omp parallel for schedule(static) if (rows * in_ * out_ > alone)
        for (std::int64_t b = 0; b < blocks; b += 2)
            for (std::int64_t g = 0; g < groups.count; ++g) {
                const auto first = groups.begin(g);
                NarrowRows some{by_group + first * in_,
                                packed + b * in_ * lanes,
                                y + first * out_ + b * lanes,
                                in_,
                                out_,
                                add};
                some.run(groups.size(g), std::min<std::int64_t>(2, blocks - b), wide);
            }
    }

    /// Rows in groups of at most `most`, as equal as can be: small ones wait for their sums.
    struct Groups {
        std::int64_t count, rows;
        Groups(std::int64_t r, std::int64_t most) : count((r + most - 1) / most), rows(r) {}
        std::int64_t begin(std::int64_t g) const { return g * rows / count; }
        std::int64_t size(std::int64_t g) const { return begin(g + 1) - begin(g); }
    };

    /// The inputs of a group of R rows as its products read them: [in][R].
    void gather(const float* x, const Groups& groups, std::int64_t g, float* to) const {
        const auto first = groups.begin(g), r = groups.size(g);
        float* out = to + first * in_;
        for (std::int64_t j = 0; j < r; ++j)
            for (std::int64_t i = 0; i < in_; ++i) out[i * r + j] = x[(first + j) * in_ + i];
    }
#else
    void multiply(const float*, const BFloat16*, float*, std::int64_t, bool) const {}

private:
#endif

    std::int64_t out_, in_;
};

}  // namespace eyas::detail
