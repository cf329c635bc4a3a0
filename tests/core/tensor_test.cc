#include "eyas/core/tensor.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <type_traits>

using namespace eyas;

TEST_CASE("tensors are aligned, sized and zeroed as asked") {
    for (const std::int64_t n : {0, 1, 15, 16, 17, 1000}) {
        const auto t = Tensor::zeros(DType::F32, {n});
        CHECK(reinterpret_cast<std::uintptr_t>(t.view().data) % Tensor::alignment == 0);
        CHECK(t.view().size_bytes() == static_cast<std::size_t>(4 * n));
        CHECK(t.as<float>().size() == static_cast<std::size_t>(n));
        CHECK(std::ranges::all_of(t.as<float>(), [](float v) { return v == 0.f; }));
        CHECK_FALSE(t.empty());
    }
    CHECK(Tensor{}.empty());
    CHECK(Tensor(DType::BF16, {2, 3}).view().bytes().size() == 12);
    CHECK(Tensor(DType::F32, {}).elements() == 1);
}

TEST_CASE("elements can be read only as what they are") {
    Tensor t(DType::F32, {4});
    CHECK_THROWS_AS(t.as<double>(), ContractError);
    CHECK_THROWS_AS(t.view().as<BFloat16>(), ContractError);
    CHECK_THROWS_WITH(t.mutable_view().as<std::int64_t>(),
                      Catch::Contains("float32") && Catch::Contains("int64"));
}

TEST_CASE("copy_of owns its bytes; moving keeps them where they are") {
    auto a = Tensor::zeros(DType::I64, {3});
    a.as<std::int64_t>()[1] = 5;
    auto b = Tensor::copy_of(a);
    a.as<std::int64_t>()[1] = 6;
    CHECK(b.as<std::int64_t>()[1] == 5);
    CHECK(b.shape() == Shape{3});
    const auto* where = b.view().data;
    const Tensor c = std::move(b);
    CHECK(c.view().data == where);
    STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<Tensor>);
    STATIC_REQUIRE(std::is_nothrow_move_constructible_v<Tensor>);
}

TEST_CASE("a view writes through and reads what was written") {
    Tensor t(DType::F32, {2, 2});
    const auto w = t.mutable_view();
    std::ranges::fill(w.as<float>(), 2.5f);
    const TensorView v = w;
    CHECK(v.as<float>()[3] == 2.5f);
    CHECK(v.data == t.view().data);
}

TEST_CASE("impossible sizes are errors, not wild allocations") {
    CHECK_THROWS_AS(Tensor(DType::F32, {-1}), DataError);
    CHECK_THROWS_AS(Tensor(DType::F32, {1ll << 40, 1ll << 40}), DataError);
}
