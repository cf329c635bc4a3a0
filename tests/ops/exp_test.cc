#include "eyas/ops/exp.hpp"

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

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
