#pragma once
#include <cstdint>

#include "eyas/device/block.hpp"

namespace eyas {

namespace detail {
/// One element of a product a thread; rows of all matrices of a batch after one another.
template <class T, class TC>
struct ProductCell {
    BatchedMatmul<T, TC> x;
    EYAS_HD void operator()(std::int64_t row, std::int64_t j) const {
        const auto& e = x.each;
        const auto which = row / e.m, i = row % e.m;
        const T *a = e.a + which * x.stride_a, *b = e.b + which * x.stride_b;
        const auto at = which * x.stride_c + i * e.ldc + j;
        float sum = 0;
        for (std::int64_t l = 0; l < e.k; ++l)
            sum += static_cast<float>(e.op_a == Op::None ? a[i * e.lda + l] : a[l * e.lda + i]) *
                   static_cast<float>(e.op_b == Op::None ? b[l * e.ldb + j] : b[j * e.ldb + l]);
        sum *= e.alpha;
        if (e.beta != 0.f) sum += e.beta * static_cast<float>((x.addend ? x.addend : e.c)[at]);
        e.c[at] = TC(sum);
    }
};
}  // namespace detail

/// Products without a library: for shapes that it has no algorithm for. Slow.
template <class T, class TC, class D>
void plain_product(const D& device, const BatchedMatmul<T, TC>& x) {
    launch_cells(device, x.count * x.each.m, x.each.n, detail::ProductCell<T, TC>{x});
}

}  // namespace eyas
