#include <omp.h>

#include <atomic>
#include <bit>
#include <catch2/catch.hpp>
#include <cstdint>
#include <vector>

#include "eyas/device/cpu.hpp"

using namespace eyas;

namespace {
/// Runs f with each number of threads, and restores the number.
template <class F>
void with_threads(F f) {
    const int before = omp_get_max_threads();
    for (const int n : {1, 2, 3, 7}) {
        omp_set_num_threads(n);
        f(n);
    }
    omp_set_num_threads(before);
}

/// Terms whose sum depends on the order of addition: large ones cancel.
double term(std::int64_t i) {
    const double sign = i % 2 ? -1 : 1;
    return sign * 1e8 / static_cast<double>(i + 1) + 1e-7 * static_cast<double>(i % 13);
}
}  // namespace

TEST_CASE("loops call f once for each index, below and above the serial limit") {
    const Cpu cpu;
    with_threads([&](int threads) {
        for (const std::int64_t n : {0, 1, 2, 4095, 4096, 4097, 100'000}) {
            CAPTURE(threads, n);
            std::vector<std::atomic<int>> calls(static_cast<std::size_t>(n));
            cpu.for_each(n, [&](std::int64_t i) { ++calls[static_cast<std::size_t>(i)]; });
            cpu.for_each_row(n, [&](std::int64_t i) { ++calls[static_cast<std::size_t>(i)]; });
            CHECK(std::ranges::all_of(calls, [](const auto& c) { return c == 2; }));
        }
    });
}

TEST_CASE("sums of integers are exact at every length around a block") {
    const Cpu cpu;
    for (const std::int64_t n : {0, 1, 4095, 4096, 4097, 8192, 100'003})
        CHECK(cpu.sum(n, [](std::int64_t i) { return static_cast<double>(i); }) ==
              static_cast<double>(n) * static_cast<double>(n - 1) / 2);
}

TEST_CASE("a sum has the same bits for every number of threads") {
    const Cpu cpu;
    const std::int64_t n = 100'003;
    double plain = 0;
    for (std::int64_t i = 0; i < n; ++i) plain += term(i);
    std::vector<std::uint64_t> bits;
    with_threads([&](int) { bits.push_back(std::bit_cast<std::uint64_t>(cpu.sum(n, term))); });
    for (const auto b : bits) CHECK(b == bits.front());
    // Any two orders of n additions differ by at most 2 (n - 1) 2^-53 sum |term|, which is below
    // 2 * 1e5 * 1.2e-16 * 1e8 (ln 1e5 + 1) = 0.03; the terms are so large that the bits above are
    // not equal for want of rounding.
    CHECK(std::bit_cast<double>(bits.front()) == Approx(plain).margin(0.03));
    CHECK(std::bit_cast<double>(bits.front()) != plain);
}
