#include "eyas/device/narrow_product.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <concepts>
#include <cstdio>
#include <limits>
#include <random>

using eyas::Bf16;
using eyas::BFloat16;
using eyas::F32;
using eyas::detail::NarrowKernel;
using eyas::detail::NarrowProduct;

namespace {
struct Shape {
    std::int64_t out, in;
};
// Inputs come in pieces of 16 numbers or 16 pairs: less than one, exactly, one pair more, and
// several with a rest.
const Shape shapes[] = {{16, 2}, {32, 46}, {48, 288}, {16, 290}, {64, 700}, {32, 1056}};
// In groups of up to 6 or 12 rows, 192 of them at a time.
const std::int64_t row_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 191, 192, 193, 400};

std::vector<float> random_values(std::int64_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> v(static_cast<std::size_t>(n));
    for (auto& x : v) x = normal(random);
    return v;
}

/// What a product takes an input for.
template <class P>
float taken(float x) {
    return std::same_as<P, Bf16> ? static_cast<float>(BFloat16(x)) : x;
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
    template <class P>
    std::vector<float> times(const float* x, std::vector<float> y, std::int64_t rows, bool add,
                             NarrowKernel kernel) const {
        product.multiply<P>(x, packed.data(), y.data(), rows, add, kernel);
        return y;
    }
};

/// f(kernel) for each one that this processor runs and that is for P.
template <class P, class F>
void each_kernel(const F& f) {
    if (!NarrowProduct(16, 2).supported()) {
        std::puts("SKIPPED: no kernels for weights in bfloat16 on this processor");
        return;
    }
    for (const auto s : shapes) REQUIRE(NarrowProduct(s.out, s.in).supported());
    for (const auto& [kernel, name] : {std::pair{NarrowKernel::Widen256, "AVX2"},
                                       {NarrowKernel::Widen512, "AVX-512"},
                                       {NarrowKernel::Dots512, "AVX-512 BF16"}}) {
        if (kernel == NarrowKernel::Dots512 && std::same_as<P, F32>) continue;
        if (!NarrowProduct::runs(kernel)) {
            std::printf("SKIPPED: the kernel of %s, which this processor has not\n", name);
            continue;
        }
        INFO(name);
        f(kernel);
    }
}
}  // namespace

TEMPLATE_TEST_CASE("a product with a narrow weight is the product, for any number of rows", "", F32,
                   Bf16) {
    each_kernel<TestType>([](NarrowKernel kernel) {
        for (const auto s : shapes) {
            const Weight w(s);
            // Each of `in` fused operations rounds its sum once, by 2^-24 of it at most, and no
            // later one makes that larger than (1 + 2^-24)^in times what it was: gamma_in of the
            // magnitudes.
            const double u = static_cast<double>(s.in) * 0x1p-24, gamma = u / (1 - u);
            for (const auto rows : row_counts)
                for (const bool add : {false, true}) {
                    const auto x = random_values(rows * s.in, 2),
                               before = random_values(rows * s.out, 3);
                    const auto y = w.times<TestType>(x.data(), before, rows, add, kernel);
                    for (std::int64_t i = 0; i < rows * s.out; ++i) {
                        const auto at = static_cast<std::size_t>(i);
                        double sum = add ? before[at] : 0, magnitude = std::abs(sum);
                        for (std::int64_t j = 0; j < s.in; ++j) {
                            const auto a =
                                taken<TestType>(x[static_cast<std::size_t>(i / s.out * s.in + j)]);
                            const auto b = w.plain[static_cast<std::size_t>(i % s.out * s.in + j)];
                            const double product = static_cast<double>(a) * b;  // exact
                            sum += product, magnitude += std::abs(product);
                        }
                        // The sum in double is off itself, by 2^-29 of what is allowed.
                        if (!(std::abs(y[at] - sum) <= gamma * magnitude * (1 + 0x1p-20)))
                            FAIL(s.out << "x" << s.in << ", " << rows << " rows, add " << add
                                       << ", " << i << ": " << y[at] << ", not " << sum
                                       << " within " << gamma * magnitude);
                    }
                }
        }
    });
}

TEMPLATE_TEST_CASE("each number is one chain of fused operations, in the order of the inputs", "",
                   F32, Bf16) {
    each_kernel<TestType>([](NarrowKernel kernel) {
        for (const auto s : shapes) {
            const Weight w(s);
            for (const bool add : {false, true}) {
                const auto x = random_values(2 * s.in, 4), before = random_values(2 * s.out, 5);
                auto want = before;
                for (std::int64_t i = 0; i < 2 * s.out; ++i) {
                    auto& sum = want[static_cast<std::size_t>(i)];
                    if (!add) sum = 0;
                    for (std::int64_t j = 0; j < s.in; ++j)
                        sum = std::fma(
                            taken<TestType>(x[static_cast<std::size_t>(i / s.out * s.in + j)]),
                            w.plain[static_cast<std::size_t>(i % s.out * s.in + j)], sum);
                }
                CHECK(w.times<TestType>(x.data(), before, 2, add, kernel) == want);
            }
        }
    });
}

TEMPLATE_TEST_CASE("a row's bits do not depend on the rows beside it", "", F32, Bf16) {
    each_kernel<TestType>([](NarrowKernel kernel) {
        for (const auto s : shapes) {
            const Weight w(s);
            const std::int64_t most = 400;
            const auto x = random_values(most * s.in, 6), before = random_values(most * s.out, 7);
            for (const bool add : {false, true}) {
                const auto all = w.times<TestType>(x.data(), before, most, add, kernel);
                // Rows [first, first + rows) by themselves.
                const auto check = [&](std::int64_t first, std::int64_t rows) {
                    const auto from = before.begin() + first * s.out, until = from + rows * s.out;
                    const auto some = w.times<TestType>(x.data() + first * s.in, {from, until},
                                                        rows, add, kernel);
                    INFO(s.out << "x" << s.in << ", " << rows << " rows from " << first);
                    REQUIRE(std::equal(some.begin(), some.end(), all.begin() + first * s.out));
                };
                for (const auto rows : row_counts)
                    for (const std::int64_t first :
                         {std::int64_t{0}, (most - rows) / 2, most - rows})
                        check(first, rows);
            }
        }
    });
}

TEMPLATE_TEST_CASE("what is not finite stays in its row, and is not finite there", "", F32, Bf16) {
    each_kernel<TestType>([](NarrowKernel kernel) {
        const Shape s{32, 46};
        const Weight w(s);
        const auto x = random_values(3 * s.in, 8);
        const std::vector<float> none(static_cast<std::size_t>(3 * s.out));
        const auto want = w.times<TestType>(x.data(), none, 3, false, kernel);
        // Values that rounding to bfloat16 makes infinite are among them.
        const float bad[] = {std::numeric_limits<float>::quiet_NaN(),
                             std::numeric_limits<float>::infinity(), 3.4e38f};
        for (const float value : bad)
            for (const std::int64_t at : {std::int64_t{0}, s.in / 2, s.in - 1}) {
                auto changed = x;
                changed[static_cast<std::size_t>(s.in + at)] = value;
                const auto got = w.times<TestType>(changed.data(), none, 3, false, kernel);
                const auto row = [&](const std::vector<float>& y, std::int64_t r) {
                    return std::vector(y.begin() + r * s.out, y.begin() + (r + 1) * s.out);
                };
                CHECK(row(got, 0) == row(want, 0));
                CHECK(row(got, 2) == row(want, 2));
                for (const float y : row(got, 1))
                    CHECK((std::same_as<TestType, Bf16> || value != 3.4e38f ? !std::isfinite(y)
                                                                            : std::abs(y) > 1e30f));
            }
    });
}

TEST_CASE("outputs that do not fill whole blocks, and odd inputs, have no narrow form") {
    CHECK_FALSE(NarrowProduct(15, 16).supported());
    CHECK_FALSE(NarrowProduct(24, 16).supported());
    CHECK_FALSE(NarrowProduct(0, 16).supported());
    CHECK_FALSE(NarrowProduct(16, 0).supported());
    CHECK_FALSE(NarrowProduct(16, 15).supported());
}
