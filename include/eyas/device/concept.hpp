#pragma once
#include <concepts>
#include <cstdint>
#include <string_view>

#include "eyas/core/host_device.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/device/precision.hpp"

namespace eyas {

/// Whether a matmul operand is read as stored or transposed.
enum class Op : char { None = 'N', Transposed = 'T' };

/// C[m, n] = alpha * op(A)[m, k] * op(B)[k, n] + beta * C, all row-major; ld* is the distance
/// between stored rows in elements. A and B have element type T, C has element type TC; sums are
/// fp32.
template <class T, class TC>
struct Matmul {
    Op op_a = Op::None, op_b = Op::None;
    std::int64_t m = 0, n = 0, k = 0;
    const T* a = nullptr;
    std::int64_t lda = 0;
    const T* b = nullptr;
    std::int64_t ldb = 0;
    TC* c = nullptr;
    std::int64_t ldc = 0;
    float alpha = 1.f, beta = 0.f;
};

/// Y[m, n] = X[m, k] W^T, or Y += X W^T, with W [n, k] in the form that PackingDevice::pack() gave
/// it; sums are fp32.
template <class T>
struct PackedMatmul {
    std::int64_t m = 0, n = 0, k = 0;
    const T* x = nullptr;
    const float* weight = nullptr;
    float* y = nullptr;
    bool add = false;
};

/// The same with W in bfloat16, in the form that NarrowingDevice::narrow() gave it. Under Bf16 X is
/// rounded to bfloat16 first.
template <PrecisionPolicy P = F32>
struct NarrowMatmul {
    std::int64_t m = 0, n = 0, k = 0;
    const float* x = nullptr;
    const BFloat16* weight = nullptr;
    float* y = nullptr;
    bool add = false;
};

namespace detail {
struct ProbeIndex {
    EYAS_HD void operator()(std::int64_t) const {}
};
struct ProbeTerm {
    EYAS_HD double operator()(std::int64_t) const { return 0; }
};
}  // namespace detail

/// One processor: it runs functors over an index range, sums deterministically, and multiplies
/// matrices. Everything else in the mathematics is written once over these (room ops).
/// `for_each(n, f)` calls f(i) once for each i in [0, n), in any order, concurrently.
/// `for_each_row(rows, f)` is the same with enough work per call that one row is one task.
/// `sum(n, f)` adds f(i) in an order that depends on n alone, never on the number of threads.
/// `memory()` gives the arrays it works on, nullptr: the host's own. Calls take effect in their
/// order; one that gives the host something (sum, download) returns when it is there, and `upload`
/// when the host's bytes may change again.
template <class D>
concept Device = requires(const D& d, std::int64_t n, const Matmul<float, float>& f32,
                          const Matmul<BFloat16, float>& bf16, const void* from, void* to,
                          std::size_t bytes) {
    { D::name } -> std::convertible_to<std::string_view>;
    d.for_each(n, detail::ProbeIndex{});
    d.for_each_row(n, detail::ProbeIndex{});
    { d.sum(n, detail::ProbeTerm{}) } -> std::same_as<double>;
    d.matmul(f32);
    d.matmul(bf16);
    { d.memory() } -> std::same_as<MemoryResource*>;
    d.upload(from, to, bytes);    // the host's to the device's
    d.download(from, to, bytes);  // the device's to the host's
    d.copy(from, to, bytes);      // the device's to the device's
    d.zero(to, bytes);            // of the device
};

/// for_each_row() of rows of little work, that of about `numbers` simple operations each: a device
/// that can tell (for_each_row(rows, f, numbers)) wakes no thread for less than that takes.
template <Device D, class F>
void for_each_light_row(const D& device, std::int64_t rows, std::int64_t numbers, F f) {
    if constexpr (requires { device.for_each_row(rows, f, numbers); })
        device.for_each_row(rows, f, numbers);
    else
        device.for_each_row(rows, f);
}

/// A device that multiplies faster with weights in a form of its own, fp32 numbers, as many as the
/// weight has. `packs(n, k)`: whether it has one for weights [n, k].
template <class D>
concept PackingDevice = Device<D> &&
    requires(const D& d, std::int64_t n, const float* f32, const BFloat16* bf16, float* packed,
             const PackedMatmul<float>& product, const PackedMatmul<BFloat16>& narrow) {
    { d.packs(n, n) } -> std::same_as<bool>;
    d.pack(f32, n, n, packed);
    d.pack(bf16, n, n, packed);
    d.matmul(product);
    d.matmul(narrow);
};

/// A device that multiplies fp32 rows with weights that it holds in bfloat16, as many numbers as
/// the weight has, with fp32 sums: half the memory to be read. A row's bits do not depend on the
/// rows beside it. Under Bf16 rows are rounded to bfloat16 first.
template <class D, class P = F32>
concept NarrowingDevice = Device<D> && requires(const D& d, std::int64_t n, const float* weight,
                                                BFloat16* narrow, const NarrowMatmul<P>& product) {
    { d.narrows(n, n) } -> std::same_as<bool>;
    d.narrow(weight, n, n, narrow);  // rounds the weight to bfloat16
    d.matmul(product);
};

}  // namespace eyas
