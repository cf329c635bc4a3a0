#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "eyas/device/block.hpp"
#include "eyas/device/cpu.hpp"

namespace eyas::detail {

/// A block that one host thread runs: phase by phase, thread by thread.
class HostBlock {
public:
    HostBlock(std::int64_t index, int threads, bool backwards)
        : index_(index), threads_(threads), backwards_(backwards) {}

    std::int64_t index() const { return index_; }
    int threads() const { return threads_; }

    template <class F>
    void each(F f) const {
        for (int i = 0; i < threads_; ++i) f(backwards_ ? threads_ - 1 - i : i);
    }

    /// In the order of a GPU: within warps of 32 by halves, then warp after warp.
    template <class T, class F, class O>
    T reduce(F f, O op) const {
        std::vector<T> v(static_cast<std::size_t>(threads_));
        each([&](int t) { v[static_cast<std::size_t>(t)] = f(t); });
        T all{};
        for (std::size_t warp = 0; warp < v.size(); warp += 32) {
            for (std::size_t half = 16; half > 0; half /= 2)
                for (std::size_t i = warp; i < warp + half; ++i) v[i] = op(v[i], v[i + half]);
            all = warp == 0 ? v[0] : op(all, v[warp]);
        }
        return all;
    }

private:
    std::int64_t index_;
    int threads_;
    bool backwards_;
};

/// A kernel's blocks, one after the other. Shared memory starts as NaN. `backwards`: blocks and
/// threads from last to first; nothing may change.
template <class K>
void run_on_host(std::int64_t blocks, int threads, bool backwards, const K& kernel) {
    for (std::int64_t i = 0; i < blocks; ++i) {
        HostBlock block(backwards ? blocks - 1 - i : i, threads, backwards);
        const auto shared = std::make_unique<typename K::Shared>();
        std::memset(static_cast<void*>(shared.get()), 0xff, sizeof *shared);
        kernel(block, *shared);
    }
}

/// A product that a GPU's library makes: Cpu's, rounded once where C is bfloat16.
template <class T, class TC>
void product_on_host(const Matmul<T, TC>& x) {
    if constexpr (std::same_as<TC, float>) {
        Cpu().matmul(x);
    } else {
        std::vector<float> wide(static_cast<std::size_t>(x.m * x.n));
        Cpu().matmul(Matmul<T, float>{x.op_a, x.op_b, x.m, x.n, x.k, x.a, x.lda, x.b, x.ldb,
                                      wide.data(), x.n, x.alpha, 0.f});
        for (std::int64_t r = 0; r < x.m; ++r)
            for (std::int64_t j = 0; j < x.n; ++j) {
                TC& to = x.c[r * x.ldc + j];
                const float sum = wide[static_cast<std::size_t>(r * x.n + j)];
                to = TC(x.beta == 0.f ? sum : sum + x.beta * static_cast<float>(to));
            }
    }
}
template <class T, class TC>
void product_on_host(const BatchedMatmul<T, TC>& x) {
    for (std::int64_t i = 0; i < x.count; ++i) {
        auto one = x.each;
        one.a += i * x.stride_a, one.b += i * x.stride_b, one.c += i * x.stride_c;
        for (std::int64_t r = 0; x.addend && r < one.m; ++r)
            std::copy_n(x.addend + i * x.stride_c + r * one.ldc, one.n, one.c + r * one.ldc);
        product_on_host(one);
    }
}

}  // namespace eyas::detail
