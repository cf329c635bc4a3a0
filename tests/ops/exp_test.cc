#include "eyas/ops/exp.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

using namespace eyas;

namespace {
constexpr float infinity = std::numeric_limits<float>::infinity();
const float nan_of_either_sign[] = {std::bit_cast<float>(0x7FC00000u),
                                    std::bit_cast<float>(0xFFC00000u)};
}  // namespace

TEST_CASE("exp_fast is e^x to an ulp or so, 0 below -87.3, and NaN for NaN") {
    for (int i = 0; i < 400'000; ++i) {
        const float x = -87.3f + static_cast<float>(i) * (175.3f / 400'000.f);
        const double want = std::exp(static_cast<double>(std::min(x, 88.f)));
        // Three roundings of the last steps of the polynomial and one of the reduced argument.
        REQUIRE(std::abs(exp_fast(x) - want) <= 4 * 6e-8 * want);
    }
    CHECK(exp_fast(0.f) == 1.f);
    CHECK(exp_fast(-0.f) == 1.f);
    for (const float x : {-87.31f, -100.f, -1e30f, -std::numeric_limits<float>::max(), -infinity})
        CHECK(exp_fast(x) == 0.f);
    for (const float x : {88.5f, 1000.f, std::numeric_limits<float>::max(), infinity})
        CHECK(exp_fast(x) == exp_fast(88.f));
    for (const float x : nan_of_either_sign) CHECK(std::isnan(exp_fast(x)));
}

TEST_CASE("largest and first_of do what the standard algorithms do") {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (const std::int64_t n : {1, 2, 63, 64, 65, 1000}) {
        std::vector<float> x(static_cast<std::size_t>(n));
        for (int round = 0; round < 50; ++round) {
            for (float& v : x) v = normal(random) - (round % 2 ? 100.f : 0.f);
            if (n > 2) x[static_cast<std::size_t>(n) / 2] = x[1];  // ties
            const auto want = std::ranges::max_element(x);
            REQUIRE(largest(x.data(), n) == *want);
            REQUIRE(first_of(x.data(), n, *want) == want - x.begin());
        }
    }
}

TEST_CASE("largest passes over NaN, and first_of stays inside a row that lacks the value") {
    for (const float nan : nan_of_either_sign) {
        const float some[] = {-3.f, nan, -2.f, nan}, none[] = {nan, nan};
        CHECK(largest(some, 4) == -2.f);
        CHECK(first_of(some, 4, -2.f) == 2);
        CHECK(largest(none, 2) == -infinity);
        CHECK(first_of(none, 2, -infinity) == 0);
    }
    const float low[] = {-infinity, -infinity};
    CHECK(largest(low, 2) == -infinity);
    CHECK(first_of(low, 2, -infinity) == 0);
}
