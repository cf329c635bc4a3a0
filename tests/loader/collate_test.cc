#include "eyas/loader/collate.hpp"

#include <catch2/catch.hpp>

#include "tests/loader/fake_store.hpp"

using namespace eyas;
using test::FakeSample;

namespace {

std::vector<std::int64_t> ints(const TensorView& t) {
    const auto s = t.as<std::int64_t>();
    return {s.begin(), s.end()};
}

}  // namespace

TEST_CASE("samples are padded on the right; the last row of each is not supervised") {
    const FakeSample a(2, 3, 1, DType::F32), b(4, 3, 2, DType::F32);
    const SampleFeatures samples[] = {{"a", a.tensors}, {"b", b.tensors}};
    BatchArena arena;
    // A longer batch was in the same memory before: nothing of it may shine through.
    const FakeSample before(9, 5, 7, DType::F32);
    const SampleFeatures old[] = {
        {"x", before.tensors}, {"y", before.tensors}, {"z", before.tensors}};
    collate(old, 100, arena);

    collate(samples, 100, arena);
    const auto& batch = arena.batch();
    CHECK(batch.batch_size() == 2);
    CHECK(batch.tokens() == 4);
    CHECK(batch.sample_ids == std::vector<std::string>{"a", "b"});
    CHECK(ints(batch.input_ids) == std::vector<std::int64_t>{100, 101, 0, 0, 200, 201, 202, 203});
    CHECK(ints(batch.attention_mask) == std::vector<std::int64_t>{1, 1, 0, 0, 1, 1, 1, 1});
    CHECK(ints(batch.loss_mask) == std::vector<std::int64_t>{1, 0, 0, 0, 1, 1, 1, 0});
    REQUIRE(batch.target.shape == Shape{2, 4, 3});
    REQUIRE(batch.hidden_state.shape == Shape{2, 4, 9});
    const auto target = batch.target.as<float>();
    CHECK(target[5] == 6.0f);   // a, row 1, column 2: 1 + 5
    CHECK(target[6] == 0.0f);   // a's padding
    CHECK(target[12] == 2.0f);  // b, row 0
    const auto aux = batch.hidden_state.as<float>();
    CHECK(aux[17] == 19.0f);  // a, row 1, column 8: 2 + 17
    CHECK(std::ranges::count(aux.subspan(18, 18), 0.0f) == 18);
    CHECK(aux[36] == 4.0f);  // b, row 0
}

TEST_CASE("the cut comes before the last row's mask is cleared") {
    const FakeSample a(6, 2, 1);
    const SampleFeatures samples[] = {{"a", a.tensors}};
    BatchArena arena;
    collate(samples, 4, arena);
    CHECK(ints(arena.batch().loss_mask) == std::vector<std::int64_t>{1, 1, 1, 0});
    CHECK(arena.batch().target.shape == Shape{1, 4, 2});
}

TEST_CASE("samples that cannot share a batch are refused") {
    const FakeSample a(2, 3, 1), wider(2, 4, 1), other(2, 3, 1, DType::F32);
    BatchArena arena;
    const SampleFeatures widths[] = {{"a", a.tensors}, {"wide", wider.tensors}};
    CHECK_THROWS_WITH(collate(widths, 9, arena), Catch::Matchers::Contains("sample wide"));
    const SampleFeatures types[] = {{"a", a.tensors}, {"f32", other.tensors}};
    CHECK_THROWS_AS(collate(types, 9, arena), DataError);
    CHECK_THROWS_AS(collate({}, 9, arena), ContractError);
    CHECK_THROWS_AS(collate(std::span(widths).first(1), 0, arena), ContractError);
    CHECK_THROWS_AS(arena.place("target", 0, 1), ContractError);
}
