#include "eyas/ops/largest.hpp"

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <limits>
#include <random>
#include <vector>

using namespace eyas;

namespace {
constexpr float infinity = std::numeric_limits<float>::infinity();
}  // namespace

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
    for (const float nan : {std::bit_cast<float>(0x7FC00000u), std::bit_cast<float>(0xFFC00000u)}) {
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
