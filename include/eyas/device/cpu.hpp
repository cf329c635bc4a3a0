#pragma once
#include <dnnl.h>
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "eyas/device/concept.hpp"
#include "eyas/device/narrow_product.hpp"
#include "eyas/device/packed_product.hpp"

namespace eyas {

/// The host processor: OpenMP for loops, oneDNN for matmul. Stateless and cheap to copy; callable
/// from any thread. Results do not depend on the number of threads, except through oneDNN's own
/// blocking, which is fixed for a given number of threads. No signal handler may run on a thread
/// that is inside matmul (core/stop_signals.hpp).
class Cpu {
public:
    static constexpr std::string_view name = "cpu";

    template <class F>
    void for_each(std::int64_t n, F f) const {
        if (n < serial_below) {
            for (std::int64_t i = 0; i < n; ++i) f(i);
            return;
        }
#pragma omp parallel for schedule(static)
        for (std::int64_t i = 0; i < n; ++i) f(i);
    }

    template <class F>
    void for_each_row(std::int64_t rows, F f) const {
        for_each_row(rows, std::move(f), alone + 1);
    }
    /// Of rows of about `numbers` simple operations each. Few or many, they are the same code: a
    /// row's bits do not depend on how many there are.
    template <class F>
    void for_each_row(std::int64_t rows, F f, std::int64_t numbers) const {
#pragma omp parallel for schedule(static) if (rows > 1 && rows * numbers > alone)
        for (std::int64_t i = 0; i < rows; ++i) f(i);
    }

    /// Threads that share its loops.
    int threads() const { return omp_get_max_threads(); }

    template <class F>
    double sum(std::int64_t n, F f) const {
        const auto blocks = (n + block - 1) / block;
        std::vector<double> partial(static_cast<std::size_t>(blocks));
        for_each_row(blocks, [&](std::int64_t b) {
            double s = 0;
            for (std::int64_t i = b * block, end = std::min(n, i + block); i < end; ++i) s += f(i);
            partial[static_cast<std::size_t>(b)] = s;
        });
        double s = 0;
        for (double p : partial) s += p;
        return s;
    }

    MemoryResource* memory() const { return nullptr; }
    void upload(const void* from, void* to, std::size_t bytes) const { copy(from, to, bytes); }
    void download(const void* from, void* to, std::size_t bytes) const { copy(from, to, bytes); }
    void copy(const void* from, void* to, std::size_t bytes) const {
        if (bytes > 0) std::memcpy(to, from, bytes);
    }
    void zero(void* to, std::size_t bytes) const {
        if (bytes > 0) std::memset(to, 0, bytes);
    }

    void matmul(const Matmul<float, float>& x) const {
        if (x.m == 0 || x.n == 0) return;
        const auto status =
            dnnl_sgemm(static_cast<char>(x.op_a), static_cast<char>(x.op_b), x.m, x.n, x.k, x.alpha,
                       x.a, x.lda, x.b, x.ldb, x.beta, x.c, x.ldc);
        detail::check_dnnl(status, "a matmul", x.m, x.n, x.k);
    }

    /// Widens the operands to fp32 and multiplies there: products of bfloat16 values are exact in
    /// fp32, sums are fp32.
    void matmul(const Matmul<BFloat16, float>& x) const {
        const auto rows_a = x.op_a == Op::None ? x.m : x.k,
                   width_a = x.op_a == Op::None ? x.k : x.m;
        const auto rows_b = x.op_b == Op::None ? x.k : x.n,
                   width_b = x.op_b == Op::None ? x.n : x.k;
        const float* a = widened(x.a, x.lda, rows_a, width_a, scratch<0>());
        const float* b = widened(x.b, x.ldb, rows_b, width_b, scratch<1>());
        matmul(Matmul<float, float>{x.op_a, x.op_b, x.m, x.n, x.k, a, width_a, b, width_b, x.c,
                                    x.ldc, x.alpha, x.beta});
    }

    bool packs(std::int64_t out, std::int64_t in) const {
        return detail::PackedProduct(out, in).supported();
    }
    void pack(const float* weight, std::int64_t out, std::int64_t in, float* packed) const {
        detail::PackedProduct(out, in).pack(weight, packed);
    }
    void pack(const BFloat16* weight, std::int64_t out, std::int64_t in, float* packed) const {
        pack(widened(weight, in, out, in, scratch<1>()), out, in, packed);
    }
    void matmul(const PackedMatmul<float>& x) const {
        if (x.m == 0) return;
        detail::PackedProduct(x.n, x.k).multiply(x.x, x.weight, x.y, x.m, x.add);
    }
    void matmul(const PackedMatmul<BFloat16>& x) const {
        matmul(PackedMatmul<float>{x.m, x.n, x.k, widened(x.x, x.k, x.m, x.k, scratch<0>()),
                                   x.weight, x.y, x.add});
    }

    bool narrows(std::int64_t out, std::int64_t in) const {
        return detail::NarrowProduct(out, in).supported();
    }
    void narrow(const float* weight, std::int64_t out, std::int64_t in, BFloat16* to) const {
        detail::NarrowProduct(out, in).pack(weight, to);
    }
    template <PrecisionPolicy P>
    void matmul(const NarrowMatmul<P>& x) const {
        detail::NarrowProduct(x.n, x.k).multiply<P>(x.x, x.weight, x.y, x.m, x.add);
    }

private:
    /// Of this thread, for an operand in fp32.
    template <int operand>
    static std::vector<float>& scratch() {
        static thread_local std::vector<float> values;
        return values;
    }
    const float* widened(const BFloat16* from, std::int64_t stride, std::int64_t rows,
                         std::int64_t width, std::vector<float>& to) const {
        to.resize(static_cast<std::size_t>(rows * width));
        float* out = to.data();
        for_each_row(rows, [=](std::int64_t r) {
            for (std::int64_t j = 0; j < width; ++j)
                out[r * width + j] = static_cast<float>(from[r * stride + j]);
        });
        return out;
    }

    static constexpr std::int64_t serial_below = 1 << 12;
    static constexpr std::int64_t alone = 1 << 14;  // operations that take less than to wake others
    static constexpr std::int64_t block = 1 << 12;
};
static_assert(PackingDevice<Cpu> && NarrowingDevice<Cpu, F32> && NarrowingDevice<Cpu, Bf16>);

}  // namespace eyas
