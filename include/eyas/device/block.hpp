#pragma once
#include <concepts>
#include <cstdint>

#include "eyas/core/host_device.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/device/concept.hpp"

namespace eyas {

/// `count` products of one kind whose operands lie a stride (in elements) apart. `addend`: what
/// beta multiplies, laid out as c and apart from it; nullptr: c itself.
template <class T, class TC>
struct BatchedMatmul {
    Matmul<T, TC> each;
    std::int64_t count = 1, stride_a = 0, stride_b = 0, stride_c = 0;
    const TC* addend = nullptr;

    const TC* added() const { return addend ? addend : each.c; }
};

/// What a kernel without shared memory says of it.
struct NoShared {};

namespace detail {
/// Several sums that are made in one pass.
template <int N>
struct Sums {
    float of[N];
    friend EYAS_HD Sums operator+(const Sums& a, const Sums& b) {
        Sums c;
        for (int i = 0; i < N; ++i) c.of[i] = a.of[i] + b.of[i];
        return c;
    }
};
struct Add {
    template <class T>
    EYAS_HD T operator()(T a, T b) const {
        return a + b;
    }
};
struct Larger {
    template <class T>
    EYAS_HD T operator()(T a, T b) const {
        return a > b ? a : b;
    }
};
struct Smaller {
    template <class T>
    EYAS_HD T operator()(T a, T b) const {
        return a < b ? a : b;
    }
};
struct ProbeBlockKernel {
    using Shared = NoShared;
    template <class B>
    EYAS_HD void operator()(B&, Shared&) const {}
};
}  // namespace detail

/// A kernel is a function object `void operator()(Block& block, Shared& shared) const` that one
/// block of threads runs, written as phases:
/// - `block.each(f)`: every thread calls f(thread); a barrier follows.
/// - `block.reduce<T>(f, op)`, T a number or detail::Sums: op over all threads' f(thread), the same
///   value and the same order of operations everywhere; a barrier follows.
/// - `most_threads`, a constant that it may have: it is never launched with more, so that a GPU's
///   compiler may give each thread more registers (512 otherwise).
/// - between phases only values that are the same in all threads are computed; what the kernel
///   writes is read and written inside phases alone, and no phase reads what another thread writes
///   in it.
/// So a processor without such threads runs a block phase by phase, one thread after the other, in
/// any order, with the same result; and a kernel that would need a barrier inside a phase gives
/// another result there.
template <class D>
concept BlockDevice = Device<D> &&
    requires(const D& d, std::int64_t n, const BatchedMatmul<float, float>& f32,
             const BatchedMatmul<BFloat16, float>& bf16, const Matmul<BFloat16, BFloat16>& narrow) {
    d.launch(n, 32, detail::ProbeBlockKernel{});  // blocks, threads a block: a multiple of 32
    d.matmul(f32);
    d.matmul(bf16);
    d.matmul(narrow);                                            // sums in fp32, rounded once
    { D::attention_tile } -> std::convertible_to<std::int64_t>;  // scores that exist at a time
};

namespace detail {

constexpr int row_threads = 256;

/// Threads of a block that a kernel takes.
template <class K>
constexpr int most_threads_of() {
    if constexpr (requires { K::most_threads; })
        return K::most_threads;
    else
        return 512;
}

/// f(i) for i in [0, n), one thread each.
template <class F>
struct ForEach {
    using Shared = NoShared;
    static constexpr int most_threads = row_threads;
    std::int64_t n;
    F f;
    template <class B>
    EYAS_HD void operator()(B& block, Shared&) const {
        block.each([&](int t) {
            const auto i = block.index() * block.threads() + t;
            if (i < n) f(i);
        });
    }
};

/// f(r, j) for the columns j in [0, width) of row r; a block has a row.
template <class F>
struct ForEachCell {
    using Shared = NoShared;
    static constexpr int most_threads = row_threads;
    std::int64_t width;
    F f;
    template <class B>
    EYAS_HD void operator()(B& block, Shared&) const {
        block.each([&](int t) {
            for (std::int64_t j = t; j < width; j += block.threads()) f(block.index(), j);
        });
    }
};

/// partial[block] = sum of f(i) over the block's share of [0, n).
template <class F>
struct SumShare {
    using Shared = NoShared;
    static constexpr int most_threads = row_threads;
    static constexpr std::int64_t share = 1 << 14;
    std::int64_t n;
    F f;
    double* partial;
    template <class B>
    EYAS_HD void operator()(B& block, Shared&) const {
        const auto begin = block.index() * share, end = begin + share < n ? begin + share : n;
        const double sum = block.template reduce<double>(
            [&](int t) {
                double s = 0;
                for (std::int64_t i = begin + t; i < end; i += block.threads()) s += f(i);
                return s;
            },
            Add{});
        block.each([&](int t) {
            if (t == 0) partial[block.index()] = sum;
        });
    }
};

struct ElementOf {
    const double* x;
    EYAS_HD double operator()(std::int64_t i) const { return x[i]; }
};

}  // namespace detail

/// f(i) for each i in [0, n).
template <class D, class F>
void launch_each(const D& device, std::int64_t n, F f) {
    const std::int64_t threads = detail::row_threads;
    device.launch((n + threads - 1) / threads, detail::row_threads, detail::ForEach<F>{n, f});
}

/// f(r, j) for each cell of [rows, width].
template <class D, class F>
void launch_cells(const D& device, std::int64_t rows, std::int64_t width, F f) {
    const auto threads = width <= 32 ? 32 : width <= 64 ? 64 : width <= 128 ? 128 : 256;
    device.launch(rows, threads, detail::ForEachCell<F>{width, f});
}

/// The sum of f(i), in double, in an order that n alone decides.
template <class D, class F>
double launch_sum(const D& device, std::int64_t n, F f) {
    if (n == 0) return 0;
    using Share = detail::SumShare<F>;
    const auto blocks = (n + Share::share - 1) / Share::share;
    Tensor partial(DType::F64, {blocks + 1}, device.memory());
    double* p = reinterpret_cast<double*>(partial.mutable_view().data);
    device.launch(blocks, detail::row_threads, Share{n, f, p});
    double sum = 0;
    if (blocks == 1) {
        device.download(p, &sum, sizeof sum);
        return sum;
    }
    return launch_sum(device, blocks, detail::ElementOf{p});
}

}  // namespace eyas
