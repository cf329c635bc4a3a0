#include "eyas/core/arena.hpp"

#include <catch2/catch.hpp>

using namespace eyas;
using Catch::Matchers::Contains;

TEST_CASE("what is planned is what is built, by part, and arrays do not overlap") {
    ArenaArray<float> a, b;
    ArenaArray<std::int64_t> c;
    const auto lay_out = [&](Arena& arena) {
        arena.give(a, 3, "first");
        arena.give(c, 9, "second");
        arena.give(b, 17, "first");
    };
    const auto plan = Arena::plan(lay_out);
    REQUIRE(plan.size() == 2);
    CHECK(plan[0].name == "first");
    CHECK(plan[0].bytes == 64 + 128);  // each array is rounded up to 64 bytes
    CHECK(plan[1].bytes == 128);
    CHECK_THROWS_AS(a.resize(1), ContractError);  // a plan gives nothing

    Arena arena;
    arena.build(lay_out);
    REQUIRE(arena.parts().size() == 2);
    CHECK(arena.parts()[1].bytes == 128);
    a.assign(3, 1.f);
    b.assign(17, 2.f);
    c.assign(9, 3);
    CHECK(std::ranges::count(a, 1.f) == 3);
    CHECK(std::ranges::count(b, 2.f) == 17);
    CHECK(std::ranges::count(c, 3) == 9);
    for (const void* p :
         {static_cast<void*>(a.data()), static_cast<void*>(b.data()), static_cast<void*>(c.data())})
        CHECK(reinterpret_cast<std::uintptr_t>(p) % Arena::alignment == 0);
}

TEST_CASE("an array grows to what was given and not past it") {
    ArenaArray<int> x;
    Arena arena;
    arena.build([&](Arena& of) { of.give(x, 2, "x"); });
    CHECK(x.empty());
    x.push_back(5);
    x.push_back(6);
    CHECK(x[1] == 6);
    CHECK_THROWS_WITH(x.push_back(7), Contains("2 were reserved"));
    CHECK(x.size() == 2);
    x.clear();
    x.resize(2);
    CHECK(x[0] == 5);
}
