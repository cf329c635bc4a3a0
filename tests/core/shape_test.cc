#include "eyas/core/shape.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <limits>
#include <vector>

using namespace eyas;

namespace {
constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();
/// Elements are limited so that 16 bytes each (complex128) still count in 63 bits.
constexpr std::int64_t most = huge / 16;
}  // namespace

TEST_CASE("a shape multiplies its extents") {
    CHECK(Shape{}.elements() == 1);  // a scalar
    CHECK(Shape{}.rank() == 0);
    CHECK(Shape{2, 17, 64}.elements() == 2176);
    CHECK(Shape{2, 0, 64}.elements() == 0);
    CHECK(Shape{2, 17, 64}.text() == "[2, 17, 64]");
    CHECK(Shape{}.text() == "[]");
    CHECK(Shape{2, 17, 64}[1] == 17);
}

TEST_CASE("shapes are equal when rank and extents are") {
    CHECK(Shape{2, 3} == Shape{2, 3});
    CHECK_FALSE(Shape{2, 3} == Shape{3, 2});
    CHECK_FALSE(Shape{6} == Shape{6, 1});
    CHECK_FALSE(Shape{} == Shape{1});
}

TEST_CASE("at most 8 dimensions") {
    const std::vector<std::int64_t> eight(8, 2), nine(9, 1);
    CHECK(Shape(std::span(eight)).elements() == 256);
    CHECK_THROWS_AS(Shape(std::span(nine)), ContractError);
}

TEST_CASE("a product is exact up to the limit and refused beyond it") {
    CHECK(Shape{most}.elements() == most);
    CHECK_THROWS_AS(Shape{most + 1}.elements(), DataError);
    CHECK(Shape{1ll << 30, 1ll << 28}.elements() == 1ll << 58);
    CHECK_THROWS_AS((Shape{1ll << 30, 1ll << 29}.elements()), DataError);
}

TEST_CASE("products that wrap around are refused, not made small") {
    CHECK_THROWS_AS((Shape{1ll << 32, 1ll << 32}.elements()), DataError);        // 2^64: wraps to 0
    CHECK_THROWS_AS((Shape{1ll << 32, (1ll << 32) + 1}.elements()), DataError);  // to 2^32
    CHECK_THROWS_AS((Shape{huge, huge}.elements()), DataError);                  // to 1
    CHECK_THROWS_AS((Shape{3, huge}.elements()), DataError);
    CHECK_THROWS_AS((Shape{65536, 65536, 65536, 65536}.elements()), DataError);
}

TEST_CASE("negative extents are refused wherever they stand") {
    CHECK_THROWS_AS(Shape{-1}.elements(), DataError);
    CHECK_THROWS_AS((Shape{-2, -3}.elements()), DataError);  // the product would be positive
    CHECK_THROWS_AS((Shape{0, -1}.elements()), DataError);
    CHECK_THROWS_AS(Shape{std::numeric_limits<std::int64_t>::min()}.elements(), DataError);
    CHECK_THROWS_WITH((Shape{4, -1}.elements()), Catch::Contains("[4, -1]"));
}
