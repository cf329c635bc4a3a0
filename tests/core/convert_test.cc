#include "eyas/core/convert.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>

using namespace eyas;

TEST_CASE("float32 to bfloat16 rounds and back is exact") {
    Tensor wide(DType::F32, {2, 2}), narrow(DType::BF16, {2, 2}), again(DType::F32, {2, 2});
    const float values[] = {1.f, -0x1.01p0f, 0x1.03p0f, 3.0e38f};  // two ties, both ways
    std::ranges::copy(values, wide.as<float>().begin());
    convert_into(wide, narrow.mutable_view());
    convert_into(narrow, again.mutable_view());
    const auto got = again.as<float>();
    CHECK(got[0] == 1.f);
    CHECK(got[1] == -1.f);
    CHECK(got[2] == 0x1.04p0f);
    CHECK(got[3] == static_cast<float>(BFloat16(3.0e38f)));
}

namespace {
// The definition of binary16: (-1)^s 2^(e-15) (1 + m/1024); e = 0: (-1)^s 2^-14 m/1024.
double defined_float16(unsigned code) {
    const auto e = static_cast<int>((code >> 10) & 31u);
    const double m = static_cast<double>(code & 1023u) / 1024;
    const double magnitude = e == 0 ? std::ldexp(m, -14) : std::ldexp(1 + m, e - 15);
    return code & 0x8000u ? -magnitude : magnitude;
}
}  // namespace

TEST_CASE("all 65536 codes of float16 widen to the value that its definition gives") {
    constexpr std::size_t codes = 65536;
    Tensor half(DType::F16, {codes}), wide(DType::F32, {codes}), narrow(DType::BF16, {codes});
    for (std::size_t c = 0; c < codes; ++c)
        half.as<Float16>()[c] = Float16(static_cast<std::uint16_t>(c));
    convert_into(half, wide.mutable_view());
    convert_into(half, narrow.mutable_view());
    std::size_t wrong = 0;
    for (std::size_t c = 0; c < codes; ++c) {
        const float value = wide.as<float>()[c];
        bool good =
            std::signbit(value) == (c >= 0x8000) && narrow.as<BFloat16>()[c] == BFloat16(value);
        if ((c & 0x7c00u) != 0x7c00u)
            good = good && static_cast<double>(value) == defined_float16(static_cast<unsigned>(c));
        else
            good = good && ((c & 0x3ffu) ? std::isnan(value) : std::isinf(value));
        if (!good && wrong++ == 0) FAIL_CHECK("first wrong code: " << c << " gives " << value);
    }
    CHECK(wrong == 0);
}

TEST_CASE("equal types are copied byte for byte, whatever the shape's rank") {
    auto from = Tensor::zeros(DType::I64, {6}), to = Tensor::zeros(DType::I64, {1, 2, 3});
    for (std::int64_t i = 0; i < 6; ++i) from.as<std::int64_t>()[static_cast<std::size_t>(i)] = i;
    convert_into(from, to.mutable_view());
    CHECK(std::ranges::equal(from.as<std::int64_t>(), to.as<std::int64_t>()));
    Tensor none(DType::F32, {0, 4}), nothing(DType::BF16, {4, 0});
    CHECK_NOTHROW(convert_into(none, nothing.mutable_view()));
}

TEST_CASE("other pairs of types and other sizes are refused") {
    Tensor f(DType::F32, {4}), i(DType::I64, {4}), d(DType::F64, {4}), small(DType::F32, {3});
    CHECK_THROWS_AS(convert_into(i, f.mutable_view()), ContractError);
    CHECK_THROWS_AS(convert_into(d, f.mutable_view()), ContractError);
    Tensor half(DType::F16, {4});
    CHECK_THROWS_AS(convert_into(f, half.mutable_view()), ContractError);  // float16 is only read
    CHECK_THROWS_WITH(convert_into(d, f.mutable_view()),
                      Catch::Contains("float64") && Catch::Contains("float32"));
    CHECK_THROWS_AS(convert_into(f, small.mutable_view()), ContractError);
}
