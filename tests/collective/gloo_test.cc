#include "eyas/collective/gloo.hpp"

#include <array>
#include <bit>
#include <catch2/catch.hpp>
#include <random>

#include "eyas/collective/collective.hpp"
#include "tests/collective/conformance.hpp"
#include "tests/collective/ranks.hpp"

using namespace eyas;
using test::bytes_of;
using test::Ranks;
using test::values_of;

namespace {
template <class T>
std::vector<T> values(int rank, std::size_t n) {
    return conformance::values_of_rank<T>(rank, n);
}

// What the class promises: ((x0 + x1) + x2) + ..., each sum rounded to T.
template <class T>
std::vector<T> sum_in_order(int world, std::size_t n) {
    auto sum = values<T>(0, n);
    for (int p = 1; p < world; ++p) {
        const auto term = values<T>(p, n);
        for (std::size_t i = 0; i < n; ++i) sum[i] += term[i];
    }
    return sum;
}

// 4096 floats are the most that go in one step; the last is several segments a shard.
const std::size_t sizes[] = {0, 1, 2, 3, 7, 1025, 4096, 4097, 1'000'000, 4'500'001};

template <class T>
std::string sums(const Rendezvous& r) {
    Collective<Gloo> group(r);
    std::string all;
    for (const auto n : sizes) {
        auto v = values<T>(r.rank, n);
        group.all_reduce(std::span<T>(v));
        all += bytes_of(std::span<const T>(v));
    }
    return all;
}
template <class T>
std::string expected_sums(int world) {
    std::string all;
    for (const auto n : sizes) all += bytes_of(std::span<const T>(sum_in_order<T>(world, n)));
    return all;
}
}  // namespace

TEMPLATE_TEST_CASE("sums are those in the order of ranks, the same bits on each, each time", "",
                   float, double) {
    for (const int world : {1, 2, 3, 4}) {
        const auto expected = expected_sums<TestType>(world);
        for (int run = 0; run < 2; ++run)
            for (const auto& got : Ranks(world, sums<TestType>).results())
                CHECK((got == expected));  // without its bytes in the report
    }
}

TEST_CASE("a broadcast gives root's bytes to all, whichever is root") {
    for (const int world : {1, 2, 3, 4})
        for (const std::size_t n : {1u, 5u, 10'000'001u}) {
            Ranks ranks(world, [&](const Rendezvous& r) {
                Collective<Gloo> group(r);
                std::string all;
                for (int root = 0; root < world; ++root) {
                    std::vector<std::byte> b(n, std::byte{static_cast<unsigned char>(r.rank + 1)});
                    group.broadcast(b, root);
                    all += bytes_of(std::span<const std::byte>(b));
                }
                return all;
            });
            std::string expected;
            for (int root = 0; root < world; ++root)
                expected += std::string(n, static_cast<char>(root + 1));
            for (const auto& got : ranks.results()) CHECK((got == expected));
        }
}

TEST_CASE("nobody leaves a barrier before all have come") {
    for (const int world : {1, 2, 3, 4}) {
        const test::RunDirectory marks("barrier");
        eyas::create_directories(marks.path());
        Ranks ranks(world, [&](const Rendezvous& r) {
            Collective<Gloo> group(r);
            std::string missing;
            for (int round = 0; round < 20; ++round) {
                // The last to come is another rank each time.
                if (round % world == r.rank) ::usleep(20'000);
                const auto mark = [&](int p) {
                    return marks.path() / (std::to_string(round) + "-" + std::to_string(p));
                };
                write_text_file(mark(r.rank), "");
                group.barrier();
                for (int p = 0; p < world; ++p)
                    if (!std::filesystem::exists(mark(p))) missing += mark(p).string() + " ";
            }
            return missing;
        });
        for (const auto& missing : ranks.results()) CHECK(missing == "");
    }
}

TEST_CASE("shards: reduce_scatter gives all_reduce's bits, gathers put them together") {
    for (const int world : {1, 2, 3, 4}) {
        Ranks ranks(world, [&](const Rendezvous& r) {
            Collective<Gloo> group(r);
            conformance::check_shards(group, 1'200'003);  // more than a segment
            conformance::check_wrong_shards(group);
            return std::string("fine");
        });
        for (const auto& got : ranks.results()) CHECK(got == "fine");
    }
}

TEST_CASE("reduce_scatter leaves the other ranks' shards as they were") {
    constexpr std::size_t n = 100'003;
    Ranks ranks(3, [](const Rendezvous& r) {
        Gloo group(r);
        const auto counts = detail::even_shards(n, group.world());
        auto v = values<float>(r.rank, n);
        const auto mine = v, sum = sum_in_order<float>(3, n);
        group.reduce_scatter(v, counts);
        std::size_t begin = 0;
        for (int p = 0; p < r.rank; ++p) begin += counts[static_cast<std::size_t>(p)];
        const auto end = begin + counts[static_cast<std::size_t>(r.rank)];
        for (std::size_t i = 0; i < n; ++i)
            if (v[i] != (i >= begin && i < end ? sum : mine)[i]) return std::to_string(i);
        return std::string("fine");
    });
    for (const auto& got : ranks.results()) CHECK(got == "fine");
}

TEST_CASE("even shards differ by one at most and cover all") {
    CHECK(detail::even_shards(11, 3) == std::vector<std::size_t>{4, 4, 3});
}

TEST_CASE("wrong ranks and times are the caller's fault") {
    CHECK_THROWS_AS(Gloo({-1, 2, "127.0.0.1", 29500, std::chrono::seconds(1)}), ContractError);
    CHECK_THROWS_AS(Gloo({2, 2, "127.0.0.1", 29500, std::chrono::seconds(1)}), ContractError);
    CHECK_THROWS_AS(Gloo({0, 0, "127.0.0.1", 29500, std::chrono::seconds(1)}), ContractError);
    CHECK_THROWS_AS(Gloo({0, 257, "127.0.0.1", 29500, std::chrono::seconds(1)}), ContractError);
    CHECK_THROWS_AS(Gloo({0, 2, "127.0.0.1", 29500, std::chrono::seconds(0)}), ContractError);
}

TEST_CASE("a world of one opens nothing") {
    const auto descriptors = conformance::own("fd"), threads = conformance::own("task");
    const Gloo one{Rendezvous{}};
    CHECK(conformance::own("fd") == descriptors);
    CHECK(conformance::own("task") == threads);
}

TEST_CASE("a group leaves no thread and no open file behind") {
    Ranks ranks(2, [](const Rendezvous& r) {
        const auto descriptors = conformance::own("fd"), threads = conformance::own("task");
        { Collective<Gloo> group(r); }
        return conformance::own("fd") == descriptors && conformance::own("task") == threads
                   ? ""
                   : "something is left";
    });
    for (const auto& got : ranks.results()) CHECK(got == "");
}
