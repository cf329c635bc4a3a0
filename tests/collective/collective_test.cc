#include "eyas/collective/collective.hpp"

#include <array>
#include <catch2/catch.hpp>

using namespace eyas;

namespace {
// A backend that says whatever it is told, and counts.
struct Told {
    int rank_, world_;
    int* calls;
    Told(int r, int w, int* c)
        : rank_(r), world_(w), calls(c) {}  // clang 14 has no C++20 aggregate ()
    int rank() const { return rank_; }
    int world() const { return world_; }
    void all_reduce(std::span<float> v) {
        ++*calls;
        for (auto& x : v) x *= static_cast<float>(world_);
    }
    void all_reduce(std::span<double>) { ++*calls; }
    void broadcast(std::span<std::byte>, int) { ++*calls; }
    void reduce_scatter(std::span<float> v, std::span<const std::size_t> counts) {
        ++*calls;
        v[counts[0]] = 7;
    }
    void all_gather(std::span<std::byte> v, std::span<const std::size_t> counts) {
        ++*calls;
        bytes = v.size();
        last = counts.back();
    }
    void gather(std::span<std::byte>, std::span<const std::size_t>, int) { ++*calls; }
    void barrier() { ++*calls; }
    static inline std::size_t bytes = 0, last = 0;  // of the last all_gather
};
static_assert(CollectiveBackend<Told>);
}  // namespace

TEST_CASE("a group of one leaves everything as it is") {
    Collective<Solo> c;
    CHECK(c.rank() == 0);
    CHECK(c.world() == 1);
    CHECK(c.is_root());
    std::array<float, 2> v{1.5f, -2.f};
    c.all_reduce(std::span<float>(v));
    c.barrier();
    CHECK(v == std::array<float, 2>{1.5f, -2.f});
    std::array<std::byte, 1> b{std::byte{7}};
    c.broadcast(b, 0);
    CHECK(b[0] == std::byte{7});
    CHECK_THROWS_AS(c.broadcast(b, 1), ContractError);
    CHECK_THROWS_AS(c.broadcast(b, -1), ContractError);
}

TEST_CASE("the facade checks ranks and passes work on") {
    int calls = 0;
    CHECK_THROWS_AS(Collective<Told>(2, 2, &calls), ContractError);
    CHECK_THROWS_AS(Collective<Told>(0, 0, &calls), ContractError);
    Collective<Told> c(1, 3, &calls);
    CHECK_FALSE(c.is_root());
    std::array<float, 1> v{2.f};
    c.all_reduce(std::span<float>(v));
    CHECK(v[0] == 6.f);
    c.all_reduce(std::span<float>());  // nothing to do, nobody is asked
    CHECK(calls == 1);
    c.barrier();
    std::array<std::byte, 1> b{};
    c.broadcast(b, 2);
    CHECK(calls == 3);
    CHECK_THROWS_AS(c.broadcast(b, 3), ContractError);
}

TEST_CASE("shards are checked, counted in bytes and passed on") {
    int calls = 0;
    Collective<Told> c(1, 3, &calls);
    std::array<float, 6> v{};
    const std::size_t counts[] = {1, 2, 3}, none[] = {0, 0, 0}, less[] = {1, 2, 2};
    c.reduce_scatter(v, counts);
    CHECK(v[1] == 7);
    c.all_gather(std::span<float>(v), counts);
    CHECK(Told::bytes == 24);
    CHECK(Told::last == 12);
    c.gather(std::span<float>(v), counts, 2);
    CHECK(calls == 3);
    c.reduce_scatter({}, none);  // nothing to do, nobody is asked
    CHECK_THROWS_AS(c.reduce_scatter(v, less), ContractError);
    CHECK_THROWS_AS(c.gather(std::span<float>(v), counts, 3), ContractError);
    CHECK(calls == 3);
}
