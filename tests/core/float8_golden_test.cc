#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>

#include "eyas/core/float8.hpp"

using namespace eyas;

namespace {

// The definition: (-1)^s * 2^(e-7) * (1 + m/8), e = 0: (-1)^s * 2^-6 * m/8; s1111111 is NaN.
double defined(unsigned code) {
    const auto e = static_cast<int>((code >> 3) & 15u);
    const double m = static_cast<double>(code & 7u) / 8;
    const double magnitude = e == 0 ? std::ldexp(m, -6) : std::ldexp(1 + m, e - 7);
    return code & 0x80u ? -magnitude : magnitude;
}
constexpr unsigned last = 0x7e;  // 448

}  // namespace

TEST_CASE("all 256 codes of e4m3fn have the value that its definition gives") {
    REQUIRE(defined(last) == 448);
    for (unsigned c = 0; c < 256; ++c) {
        INFO(c);
        const float value = from_e4m3(static_cast<std::uint8_t>(c));
        if ((c & 0x7fu) == 0x7fu) {
            CHECK(std::isnan(value));
            continue;
        }
        CHECK(static_cast<double>(value) == defined(c));
        CHECK(std::signbit(value) == (c >= 128));
        CHECK(to_e4m3(value) == c);
    }
}

TEST_CASE("rounding to e4m3fn is to nearest, ties to even") {
    for (unsigned c = 0; c < last; ++c)
        for (const float sign : {1.0f, -1.0f}) {
            INFO(c << " " << sign);
            const unsigned bit = sign < 0 ? 0x80u : 0;
            const auto middle = static_cast<float>((defined(c) + defined(c + 1)) / 2);
            const float below = std::nextafter(middle, 0.0f), above = std::nextafter(middle, 1e9f);
            CHECK(to_e4m3(sign * middle) == ((c % 2 == 0 ? c : c + 1) | bit));
            CHECK(to_e4m3(sign * below) == (c | bit));
            CHECK(to_e4m3(sign * above) == ((c + 1) | bit));
        }
}

TEST_CASE("what lies beyond 448 saturates, NaN stays NaN") {
    for (const float v : {448.0f, 449.0f, 464.0f, 480.0f, 1e9f, std::numeric_limits<float>::max(),
                          std::numeric_limits<float>::infinity()}) {
        CHECK(to_e4m3(v) == 0x7e);
        CHECK(to_e4m3(-v) == 0xfe);
    }
    CHECK(to_e4m3(std::numeric_limits<float>::quiet_NaN()) == 0x7f);
    CHECK(to_e4m3(std::numeric_limits<float>::denorm_min()) == 0);
    CHECK(to_e4m3(-0.0f) == 0x80);
}

TEMPLATE_TEST_CASE("scaled rows are off by at most half a step of their own scale", "", float,
                   BFloat16) {
    constexpr std::int64_t rows = 7, width = 48;
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    Tensor t(dtype_of<TestType>, {1, rows, width});
    auto x = t.as<TestType>();
    for (std::size_t i = 0; i < x.size(); ++i) {
        const auto row = i / width;
        const float size = row == 0   ? 25'000.0f
                           : row == 6 ? 0.0f
                                      : std::ldexp(1.0f, 1 - 2 * int(row));
        x[i] = TestType(size * normal(random));
    }
    for (const std::int64_t groups : {1, 3}) {
        const auto e = encode_e4m3(t, groups, "test");
        REQUIRE(e.scales.shape() == Shape{rows, groups});
        REQUIRE(e.codes.shape() == t.shape());
        Tensor back(t.dtype(), t.shape());
        decode_e4m3(e.codes, e.scales, back.mutable_view());
        const auto y = back.as<TestType>();
        const auto n = static_cast<std::size_t>(width / groups);
        for (std::size_t i = 0; i < x.size(); ++i) {
            const float scale = e.scales.as<float>()[i / n], want = static_cast<float>(x[i]);
            // Half a unit of 3 bits of mantissa, or of the subnormals' step 2^-9; the decoded
            // number is rounded once more, to at worst 8 bits.
            const float half = std::max(std::abs(want) / 16, scale * 0x1p-10f);
            REQUIRE(std::abs(static_cast<float>(y[i]) - want) <=
                    half + (std::abs(want) + half) * 0x1p-8f);
        }
    }
}

TEST_CASE("states that float8 cannot carry are refused") {
    Tensor t = Tensor::zeros(DType::F32, {1, 3, 8});
    CHECK_THROWS_AS(encode_e4m3(t, 3, "test"), ContractError);
    CHECK_THROWS_AS(encode_e4m3(Tensor::zeros(DType::I64, {4}), 1, "test"), ContractError);
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        t.as<float>()[17] = bad;
        CHECK_THROWS_WITH(encode_e4m3(t, 2, "test"), Catch::Matchers::Contains("row 2"));
    }
    const auto e = encode_e4m3(Tensor::zeros(DType::F32, {3, 8}), 1, "test");
    Tensor other(DType::F32, {3, 4});
    CHECK_THROWS_AS(decode_e4m3(e.codes, e.scales, other.mutable_view()), ContractError);
}
