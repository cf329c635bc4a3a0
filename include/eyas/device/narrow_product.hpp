#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <vector>

#include "eyas/core/bfloat16.hpp"
#include "eyas/device/narrow_inputs.hpp"
#include "eyas/device/narrow_rows.hpp"
#include "eyas/device/precision.hpp"

namespace eyas::detail {

/// Products x W^T of a weight W [out, in] that is held in bfloat16, with sums and y in fp32: half
/// the bytes of fp32 weights, which is what products of few rows take their time for. W lies in
/// blocks of 16 outputs and in pairs of inputs, [out/16][in/2][16][2], the later input of a pair
/// first. Every number of the result is one chain of fused products, in the order of `in`, whatever
/// rows are multiplied beside it. Under Bf16 inputs are rounded to bfloat16 first: the same chain
/// on every processor, at twice the speed where it has AVX-512 BF16 (which takes numbers below
/// 2^-126 for zero). Callable from any thread.
class NarrowProduct {
public:
    static constexpr std::int64_t lanes = 16;

    NarrowProduct(std::int64_t out, std::int64_t in) : out_(out), in_(in) {}

    /// Whether this processor and these sizes are ones it has kernels for.
    bool supported() const {
#ifdef __x86_64__
        return runs(NarrowKernel::Widen256) && out_ % lanes == 0 && in_ % 2 == 0 && out_ > 0 &&
               in_ > 0;
#else
        return false;
#endif
    }

    /// W [out, in], row by row, rounded to bfloat16, into its blocks.
    void pack(const float* weight, BFloat16* packed) const {
        for (std::int64_t o = 0; o < out_; ++o)
            for (std::int64_t i = 0; i < in_; ++i)
                packed[(o / lanes * in_ + i - i % 2) * lanes + o % lanes * 2 + 1 - i % 2] =
                    BFloat16(weight[o * in_ + i]);
    }

#ifdef __x86_64__
    /// Whether this processor has the instructions of a kernel.
    static bool runs(NarrowKernel k) {
        static const bool two = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        static const bool wide = two && __builtin_cpu_supports("avx512f");
        static const bool dots = wide && __builtin_cpu_supports("avx512bf16");
        return k == NarrowKernel::Widen256 ? two : k == NarrowKernel::Widen512 ? wide : dots;
    }
    template <PrecisionPolicy P>
    static NarrowKernel fastest() {
        if (std::same_as<P, Bf16> && runs(NarrowKernel::Dots512)) return NarrowKernel::Dots512;
        return runs(NarrowKernel::Widen512) ? NarrowKernel::Widen512 : NarrowKernel::Widen256;
    }

    /// y [rows, out] = x W^T, or y += x W^T. x [rows, in]. Kernels give the same bits; one of dots
    /// is for Bf16 only.
    template <PrecisionPolicy P>
    void multiply(const float* x, const BFloat16* packed, float* y, std::int64_t rows, bool add,
                  NarrowKernel kernel = fastest<P>()) const {
        const auto form = std::same_as<P, F32>              ? NarrowInputs::Form::Floats
                          : kernel == NarrowKernel::Dots512 ? NarrowInputs::Form::Pairs
                                                            : NarrowInputs::Form::Rounded;
        for (; rows > 0; rows -= rows_at_once) {
            multiply_some(x, packed, y, std::min(rows, rows_at_once), add, kernel, form);
            x += rows_at_once * in_, y += rows_at_once * out_;
        }
    }

private:
    static constexpr std::int64_t rows_at_once = 192;  // whose inputs stay in a core's cache
    static constexpr std::int64_t alone = 1 << 16;  // products that take less than to wake others

    void multiply_some(const float* x, const BFloat16* packed, float* y, std::int64_t rows,
                       bool add, NarrowKernel kernel, NarrowInputs::Form form) const {
        const Groups groups(rows, NarrowRows::most_rows(kernel));
        const auto pieces = NarrowInputs::pieces(in_, form);
        static thread_local std::vector<NarrowPiece> inputs;
        inputs.resize(static_cast<std::size_t>(rows * pieces));
        NarrowPiece* by_group = inputs.data();
#pragma omp parallel for schedule(static) if (groups.count > 4)
        for (std::int64_t g = 0; g < groups.count; ++g)
            NarrowInputs::gather(x + groups.begin(g) * in_, groups.size(g), in_, form,
                                 by_group + groups.begin(g) * pieces);
        const auto blocks = out_ / lanes;
#pragma omp parallel for schedule(static) if (rows * in_ * out_ > alone)
        for (std::int64_t b = 0; b < blocks; b += 2)
            for (std::int64_t g = 0; g < groups.count; ++g) {
                const auto first = groups.begin(g);
                NarrowRows some{by_group + first * pieces,
                                packed + b * in_ * lanes,
                                y + first * out_ + b * lanes,
                                in_,
                                out_,
                                add};
                some.run(groups.size(g), std::min<std::int64_t>(2, blocks - b), kernel);
            }
    }

    /// Rows in groups of at most `most`, as equal as can be: small ones wait for their sums.
    struct Groups {
        std::int64_t count, rows;
        Groups(std::int64_t r, std::int64_t most) : count((r + most - 1) / most), rows(r) {}
        std::int64_t begin(std::int64_t g) const { return g * rows / count; }
        std::int64_t size(std::int64_t g) const { return begin(g + 1) - begin(g); }
    };
#else
    static bool runs(NarrowKernel) { return false; }
    template <PrecisionPolicy P>
    void multiply(const float*, const BFloat16*, float*, std::int64_t, bool,
                  NarrowKernel = NarrowKernel::Widen256) const {}

private:
#endif

    std::int64_t out_, in_;
};

}  // namespace eyas::detail
