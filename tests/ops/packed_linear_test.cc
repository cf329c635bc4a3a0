#include <algorithm>
#include <cmath>
#include <cstdio>

#include "eyas/device/cpu.hpp"
#include "eyas/ops/linear.hpp"
#include "finite_difference.hpp"

using namespace eyas;
using namespace eyas::test;

namespace {
struct Shape2 {
    std::int64_t out, in;
};
const Shape2 shapes[] = {{16, 16}, {48, 112}, {64, 1040}, {1008, 64}, {80, 576}};
const std::int64_t row_counts[] = {1, 2, 7, 8, 64, 193, 530};

/// x W^T + y in double, and what rounding may move it by: k products and sums in fp32, in any
/// order, of numbers whose magnitudes add up to `magnitude`, each off by at most 2^-24 of it.
struct Exact {
    double value = 0, magnitude = 0;
    double bound(std::int64_t k) const {
        return static_cast<double>(k + 2) * 0x1.0p-24 * magnitude;
    }
};
template <class T>
Exact exact(const T* x, const T* w, std::int64_t k, double y) {
    Exact e{y, std::abs(y)};
    for (std::int64_t j = 0; j < k; ++j) {
        const double product =
            static_cast<double>(static_cast<float>(x[j])) * static_cast<float>(w[j]);
        e.value += product, e.magnitude += std::abs(product);
    }
    return e;
}

template <class T>
std::vector<T> values(std::int64_t n, unsigned seed) {
    const auto v = random_values(static_cast<std::size_t>(n), seed);
    return {v.begin(), v.end()};
}

/// Says so where this processor packs nothing; else it packs all of the shapes.
bool packs(const Cpu& cpu) {
    const bool first = cpu.packs(shapes[0].out, shapes[0].in);
    for (const auto s : shapes) REQUIRE(cpu.packs(s.out, s.in) == first);
    if (!first) std::puts("SKIPPED: oneDNN has no kernel for packed weights on this processor");
    return first;
}

/// A weight and its packed form.
template <class T>
struct Packed {
    Packed(const Cpu& cpu, Shape2 s)
        : plain(values<T>(s.out * s.in, 1)),
          packed(plain.size()),
          weight{plain.data(), s.out, s.in, packed.data()} {
        cpu.pack(plain.data(), s.out, s.in, packed.data());
    }
    std::vector<T> plain;
    std::vector<float> packed;
    LinearWeight<T> weight;
};
}  // namespace

TEST_CASE("a product with packed weights is the product, for any number of rows") {
    const Cpu cpu;
    if (!packs(cpu)) return;
    RoundingScratch unused;
    for (const auto s : shapes) {
        const Packed<float> w(cpu, s);
        for (const auto rows : row_counts)
            for (const bool add : {false, true}) {
                const auto x = values<float>(rows * s.in, 2),
                           before = values<float>(rows * s.out, 3);
                auto y = before;
                linear(cpu, x.data(), w.weight, y.data(), rows, add, unused);
                for (std::int64_t i = 0; i < rows * s.out; ++i) {
                    const auto at = static_cast<std::size_t>(i);
                    const auto e =
                        exact(x.data() + i / s.out * s.in, w.plain.data() + i % s.out * s.in, s.in,
                              add ? static_cast<double>(before[at]) : 0);
                    if (std::abs(y[at] - e.value) > e.bound(s.in))
                        FAIL(s.out << "x" << s.in << ", " << rows << " rows, " << i << ": " << y[at]
                                   << ", not " << e.value << " within " << e.bound(s.in));
                }
            }
    }
}

TEST_CASE("a row's bits do not depend on the number of rows beside it") {
    const Cpu cpu;
    if (!packs(cpu)) return;
    RoundingScratch unused;
    for (const auto s : shapes) {  // of up to 1040 inputs: more than a kernel takes at once
        const Packed<float> w(cpu, s);
        constexpr std::int64_t most = 530;
        const auto x = values<float>(most * s.in, 2), before = values<float>(most * s.out, 3);
        for (const bool add : {false, true}) {
            auto all = before;
            linear(cpu, x.data(), w.weight, all.data(), most, add, unused);
            for (const auto rows : row_counts)
                for (const std::int64_t first : {std::int64_t{0}, most - rows}) {
                    const auto from = before.begin() + first * s.out;
                    std::vector<float> some(from, from + rows * s.out);
                    linear(cpu, x.data() + first * s.in, w.weight, some.data(), rows, add, unused);
                    INFO(s.out << "x" << s.in << ", " << rows << " rows from " << first);
                    REQUIRE(std::equal(some.begin(), some.end(), all.begin() + first * s.out));
                }
        }
    }
}

TEST_CASE("bfloat16 weights are packed as they are, and the product is rounded once") {
    const Cpu cpu;
    if (!packs(cpu)) return;
    for (const auto s : {shapes[0], shapes[1]}) {
        const Packed<BFloat16> w(cpu, s);
        for (std::int64_t rows : {1, 7, 64}) {
            Arena arena;
            RoundingScratch scratch;
            arena.build([&](Arena& a) { a.give(scratch, rows * s.out, "scratch"); });
            const auto x = values<BFloat16>(rows * s.in, 2);
            std::vector<float> unrounded(static_cast<std::size_t>(rows * s.out));
            std::vector<BFloat16> y(unrounded.size(), BFloat16(1.f));
            linear_unrounded(cpu, x.data(), w.weight, unrounded.data(), rows);
            linear(cpu, x.data(), w.weight, y.data(), rows, true, scratch);
            for (std::int64_t i = 0; i < rows * s.out; ++i) {
                const auto at = static_cast<std::size_t>(i);
                const auto e =
                    exact(x.data() + i / s.out * s.in, w.plain.data() + i % s.out * s.in, s.in, 0);
                REQUIRE(std::abs(unrounded[at] - e.value) <= e.bound(s.in));
                const auto rounded = static_cast<float>(BFloat16(unrounded[at]));
                REQUIRE(static_cast<float>(y[at]) == static_cast<float>(BFloat16(1.f + rounded)));
            }
        }
    }
}

TEST_CASE("what has no packed form is multiplied as it is") {
    const Cpu cpu;
    CHECK_FALSE(cpu.packs(15, 16));
    CHECK_FALSE(cpu.packs(16, 8));
    CHECK_FALSE(cpu.packs(0, 16));
    RoundingScratch unused;
    const auto x = values<float>(3 * 5, 1), w = values<float>(4 * 5, 2);
    std::vector<float> y(12), packed_or_not(12);
    linear(cpu, x.data(), 5, w.data(), y.data(), 4, 3, 5, 4, false, unused);
    linear(cpu, x.data(), LinearWeight<float>{w.data(), 4, 5}, packed_or_not.data(), 3, false,
           unused);
    CHECK(y == packed_or_not);
}

TEST_CASE("no rows are no product") {
    const Cpu cpu;
    if (!packs(cpu)) return;
    const Packed<float> w(cpu, shapes[0]);
    float y = 1.f;
    linear_unrounded(cpu, &y, w.weight, &y, 0);
    CHECK(y == 1.f);
}
