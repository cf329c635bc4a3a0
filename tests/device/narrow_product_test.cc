#include "eyas/device/narrow_product.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <random>

using eyas::BFloat16;
using eyas::detail::NarrowProduct;

namespace {
struct Shape {
    std::int64_t out, in;
};
// Inputs are taken 288 at a time: less than that, exactly, one more, and several with a rest.
const Shape shapes[] = {{16, 1}, {32, 47}, {48, 288}, {16, 289}, {64, 700}, {32, 1040}};
// In groups of up to 6 or 12 rows, 192 of them at a time.
const std::int64_t row_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 191, 192, 193, 400};

std::vector<float> random_values(std::int64_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> v(static_cast<std::size_t>(n));
    for (auto& x : v) x = normal(random);
    return v;
}

struct Weight {
    NarrowProduct product;
    std::vector<float> plain;  // [out, in], exact in bfloat16
    std::vector<BFloat16> packed;

    explicit Weight(Shape s) : product(s.out, s.in), plain(random_values(s.out * s.in, 1)) {
        for (auto& w : plain) w = static_cast<float>(BFloat16(w));
        packed.resize(plain.size());
        product.pack(plain.data(), packed.data());
    }
    std::vector<float> times(const float* x, std::vector<float> y, std::int64_t rows,
                             bool add) const {
        product.multiply(x, packed.data(), y.data(), rows, add);
        return y;
    }
};

bool skips() {
    if (NarrowProduct(16, 1).supported()) {
        for (const auto s : shapes) REQUIRE(NarrowProduct(s.out, s.in).supported());
        return false;
    }
    std::puts("SKIPPED: no kernels for weights in bfloat16 on this processor");
    return true;
}
}  // namespace

TEST_CASE("a product with a narrow weight is the product, for any number of rows") {
    if (skips()) return;
    for (const auto s : shapes) {
        const Weight w(s);
        // Each of `in` fused operations rounds its sum once, by 2^-24 of it at most, and no later
        // one makes that larger than (1 + 2^-24)^in times what it was: gamma_in of the magnitudes.
        const double u = static_cast<double>(s.in) * 0x1p-24, gamma = u / (1 - u);
        for (const auto rows : row_counts)
            for (const bool add : {false, true}) {
                const auto x = random_values(rows * s.in, 2),
                           before = random_values(rows * s.out, 3);
                const auto y = w.times(x.data(), before, rows, add);
                for (std::int64_t i = 0; i < rows * s.out; ++i) {
                    const auto at = static_cast<std::size_t>(i);
                    double sum = add ? before[at] : 0, magnitude = std::abs(sum);
                    for (std::int64_t j = 0; j < s.in; ++j) {
                        const auto a = x[static_cast<std::size_t>(i / s.out * s.in + j)];
                        const auto b = w.plain[static_cast<std::size_t>(i % s.out * s.in + j)];
                        const double product = static_cast<double>(a) * b;  // exact
                        sum += product, magnitude += std::abs(product);
                    }
                    // The sum in double is off itself, by 2^-29 of what is allowed.
                    if (!(std::abs(y[at] - sum) <= gamma * magnitude * (1 + 0x1p-20)))
                        FAIL(s.out << "x" << s.in << ", " << rows << " rows, add " << add << ", "
                                   << i << ": " << y[at] << ", not " << sum << " within "
                                   << gamma * magnitude);
                }
            }
    }
}

TEST_CASE("each number is one chain of fused operations, in the order of the inputs") {
    if (skips()) return;
    for (const auto s : shapes) {
        const Weight w(s);
        for (const bool add : {false, true}) {
            const auto x = random_values(2 * s.in, 4), before = random_values(2 * s.out, 5);
            auto want = before;
            for (std::int64_t i = 0; i < 2 * s.out; ++i) {
                auto& sum = want[static_cast<std::size_t>(i)];
                if (!add) sum = 0;
                for (std::int64_t j = 0; j < s.in; ++j)
                    sum = std::fma(x[static_cast<std::size_t>(i / s.out * s.in + j)],
                                   w.plain[static_cast<std::size_t>(i % s.out * s.in + j)], sum);
            }
            CHECK(w.times(x.data(), before, 2, add) == want);
        }
    }
}

TEST_CASE("a row's bits do not depend on the rows beside it") {
    if (skips()) return;
    for (const auto s : shapes) {
        const Weight w(s);
        const std::int64_t most = 400;
        const auto x = random_values(most * s.in, 6), before = random_values(most * s.out, 7);
        for (const bool add : {false, true}) {
            const auto all = w.times(x.data(), before, most, add);
            // Rows [first, first + rows) by themselves.
            const auto check = [&](std::int64_t first, std::int64_t rows) {
                const auto from = before.begin() + first * s.out, until = from + rows * s.out;
                const auto some = w.times(x.data() + first * s.in, {from, until}, rows, add);
                INFO(s.out << "x" << s.in << ", " << rows << " rows from " << first);
                REQUIRE(std::equal(some.begin(), some.end(), all.begin() + first * s.out));
            };
            for (const auto rows : row_counts)
                for (const std::int64_t first : {std::int64_t{0}, (most - rows) / 2, most - rows})
                    check(first, rows);
        }
    }
}

TEST_CASE("outputs that do not fill whole blocks have no narrow form") {
    CHECK_FALSE(NarrowProduct(15, 16).supported());
    CHECK_FALSE(NarrowProduct(24, 16).supported());
    CHECK_FALSE(NarrowProduct(0, 16).supported());
    CHECK_FALSE(NarrowProduct(16, 0).supported());
}
