#include "eyas/core/dtype.hpp"

#include <catch2/catch.hpp>
#include <set>
#include <string>

using namespace eyas;

TEST_CASE("the table has one row per enumerator, in order") {
    for (std::size_t i = 0; i < detail::dtype_table.size(); ++i)
        CHECK(static_cast<std::size_t>(detail::dtype_table[i].dtype) == i);
    CHECK(detail::dtype_table.size() == static_cast<std::size_t>(DType::C128) + 1);
}

TEST_CASE("names are unique and lead back to their type, with and without torch.") {
    std::set<std::string_view> torch, safetensors;
    for (const auto& r : detail::dtype_table) {
        CHECK(torch.insert(r.torch).second);
        if (!r.safetensors.empty()) CHECK(safetensors.insert(r.safetensors).second);
        CHECK(name_of(r.dtype) == r.torch);
        CHECK(dtype_from_name(r.torch, "test") == r.dtype);
        CHECK(dtype_from_name("torch." + std::string(r.torch), "test") == r.dtype);
    }
}

TEST_CASE("element sizes follow the width in the name") {
    for (const auto& r : detail::dtype_table) {
        const auto digit = r.torch.find_first_of("0123456789");
        const std::size_t bits = digit == std::string_view::npos
                                     ? 8  // bool
                                     : std::stoul(std::string(r.torch.substr(digit)));
        CAPTURE(r.torch);
        CHECK(size_of(r.dtype) * 8 == bits);
    }
}

TEST_CASE("C++ element types have the size of their dtype") {
    CHECK(size_of(dtype_of<double>) == sizeof(double));
    CHECK(size_of(dtype_of<float>) == sizeof(float));
    CHECK(size_of(dtype_of<BFloat16>) == sizeof(BFloat16));
    CHECK(size_of(dtype_of<std::int64_t>) == sizeof(std::int64_t));
    CHECK(size_of(dtype_of<std::int32_t>) == sizeof(std::int32_t));
    CHECK(size_of(dtype_of<std::uint8_t>) == sizeof(std::uint8_t));
    CHECK(size_of(dtype_of<bool>) == sizeof(bool));
}

TEST_CASE("an unknown name is an error that names it and the place") {
    for (const std::string name :
         {"", "torch.", "float", "Float32", "float32 ", "torch.torch.int8"})
        CHECK_THROWS_AS(dtype_from_name(name, "x.ckpt"), DataError);
    CHECK_THROWS_WITH(dtype_from_name("qint8", "x.ckpt"),
                      Catch::StartsWith("x.ckpt: ") && Catch::Contains("qint8"));
}
