#include <catch2/catch.hpp>
#include <cstdlib>

#include "eyas/sample/vocab_map_build.hpp"
#include "eyas/sample/vocab_map_io.hpp"

using namespace eyas;

namespace {

using Ids = std::vector<std::int64_t>;

Ids target_ids(const VocabMap& m) {
    Ids out;
    for (std::int64_t d = 0; d < m.draft_vocab_size(); ++d) out.push_back(m.target_id(d));
    return out;
}

TokenCounts counted(const std::vector<Ids>& samples) {
    TokenCounts c;
    for (const auto& ids : samples) c.add(ids, Ids(ids.size(), 1), "sample");
    return c;
}

}  // namespace

TEST_CASE("the most frequent supervised tokens get draft ids, ascending") {
    CHECK(target_ids(build_vocab_map(counted({{9, 9, 9, 4, 4, 7, 2}}), 10, 2)) == Ids{4, 9});
}

TEST_CASE("of equally frequent tokens the one counted first wins") {
    // Across samples: 8 was counted in an earlier sample than 1.
    CHECK(target_ids(build_vocab_map(counted({{8}, {1}}), 10, 1)) == Ids{8});
    // Within one sample tokens are counted by ascending id, wherever they stand.
    CHECK(target_ids(build_vocab_map(counted({{8, 1}}), 10, 1)) == Ids{1});
}

TEST_CASE("too few tokens are filled up with the smallest unseen ids") {
    const auto m = build_vocab_map(counted({{1, 8}}), 10, 5);
    CHECK(target_ids(m) == Ids{0, 1, 2, 3, 8});
    CHECK(m.t2d == std::vector<std::uint8_t>{1, 1, 1, 1, 0, 0, 0, 0, 1, 0});
    CHECK(target_ids(build_vocab_map(TokenCounts{}, 4, 4)) == Ids{0, 1, 2, 3});
}

TEST_CASE("only supervised rows before max_length count") {
    TokenCounts c;
    c.add(Ids{5, 6, 7, 8}, Ids{0, 1, 0, 1}, "a", 10, 3);
    REQUIRE(c.entries().size() == 1);
    CHECK(c.entries()[0].token == 6);
    CHECK(c.total() == 1);
}

TEST_CASE("a sample that does not fit is refused and leaves the counts alone") {
    TokenCounts c;
    CHECK_THROWS_AS(c.add(Ids{1, 2}, Ids{1}, "a"), DataError);
    CHECK_THROWS_AS(c.add(Ids{1, -2}, Ids{1, 1}, "a"), DataError);
    CHECK_THROWS_AS(c.add(Ids{1, 10}, Ids{1, 1}, "a", 10), DataError);
    CHECK(c.total() == 0);
    CHECK_NOTHROW(c.add(Ids{1, -2}, Ids{1, 0}, "a", 10));  // what is not supervised is not counted
}

TEST_CASE("coverage is the share of counted tokens with a draft id") {
    const auto c = counted({{1, 1, 1, 2}});
    CHECK(coverage(build_vocab_map(c, 10, 1), c) == 0.75);
    CHECK(coverage(identity_vocab_map(10), c) == 1.0);
}

TEST_CASE("sizes that make no map are refused") {
    CHECK_THROWS_AS(build_vocab_map(TokenCounts{}, 10, 11), ContractError);
    CHECK_THROWS_AS(build_vocab_map(TokenCounts{}, 10, 0), ContractError);
    CHECK_THROWS_AS(build_vocab_map(counted({{12}}), 10, 2), DataError);
}

TEST_CASE("a map that does not fit the head, or contradicts itself, is refused") {
    auto m = build_vocab_map(counted({{1, 8}}), 10, 4);
    CHECK_NOTHROW(check_vocab_map(m, 10, 4, "map"));
    CHECK_THROWS_WITH(check_vocab_map(m, 10, 5, "map"),
                      Catch::Matchers::Contains("draft_vocab_size 5"));
    CHECK_THROWS_WITH(check_vocab_map(m, 11, 4, "map"), Catch::Matchers::Contains("vocab_size 11"));
    SECTION("wrong offset") { m.d2t[2] += 1; }
    SECTION("a token too many") { m.t2d[9] = 1; }
    SECTION("a token too few") { m.t2d[8] = 0; }
    CHECK_THROWS_AS(check_vocab_map(m, 10, 4, "map"), DataError);
}

TEST_CASE("maps are saved and loaded in both formats; damaged ones are refused") {
    const char* tmp = std::getenv("TEST_TMPDIR");
    const auto dir = (tmp ? std::filesystem::path(tmp) : std::filesystem::temp_directory_path()) /
                     ("eyas_vocab_map_test_" + std::to_string(::getpid()));
    eyas::create_directories(dir);
    const auto m = build_vocab_map(counted({{1, 8, 8}}), 10, 4);
    for (const char* name : {"map.pt", "map.safetensors"}) {
        save_vocab_map(dir / name, m);
        const auto back = load_vocab_map(dir / name);
        CHECK(back.d2t == m.d2t);
        CHECK(back.t2d == m.t2d);
    }
    const Ids offsets{0, 5};
    const std::uint8_t flags[] = {1, 0, 0, 0};
    const NamedTensor wrong[] = {
        {"d2t", {reinterpret_cast<const std::byte*>(offsets.data()), DType::I64, Shape{2}}},
        {"t2d", {reinterpret_cast<const std::byte*>(flags), DType::Bool, Shape{4}}}};
    write_safetensors(dir / "bad.safetensors", wrong);
    CHECK_THROWS_WITH(load_vocab_map(dir / "bad.safetensors"),
                      Catch::Matchers::Contains("bad.safetensors"));
    write_safetensors(dir / "half.safetensors", std::span(wrong).first(1));
    CHECK_THROWS_AS(load_vocab_map(dir / "half.safetensors"), DataError);
    CHECK_THROWS_AS(load_vocab_map(dir / "absent.pt"), DataError);
    std::filesystem::remove_all(dir);
}
