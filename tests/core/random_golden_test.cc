#include <catch2/catch.hpp>
#include <cstdint>
#include <vector>

#include "eyas/core/random.hpp"

using namespace eyas;

namespace {
using Order = std::vector<std::int64_t>;

/// Folds a permutation into one number, for those too long to write down.
std::uint64_t fold(const Order& order) {
    std::uint64_t h = 0;
    for (const auto v : order) h = h * 6364136223846793005ull + static_cast<std::uint64_t>(v) + 1;
    return h;
}
}  // namespace

// Expected: torch 2.15, generator.manual_seed(seed); torch.randperm(n, generator=generator).
TEST_CASE("torch_randperm yields torch's permutations") {
    CHECK(torch_randperm(0, 0).empty());
    CHECK(torch_randperm(1, 42) == Order{0});
    CHECK(torch_randperm(2, 0) == Order{0, 1});
    CHECK(torch_randperm(2, 1) == Order{1, 0});
    CHECK(torch_randperm(10, 0) == Order{4, 1, 7, 5, 3, 9, 0, 8, 6, 2});
    CHECK(torch_randperm(10, 1) == Order{5, 6, 1, 2, 0, 8, 9, 3, 7, 4});
    CHECK(torch_randperm(10, 42) == Order{2, 6, 1, 8, 4, 5, 0, 9, 3, 7});
}

TEST_CASE("seeds of 32 bits and more are torch's too") {
    CHECK(torch_randperm(10, 0xffffffffull) == Order{1, 4, 6, 2, 0, 5, 8, 7, 9, 3});
    CHECK(torch_randperm(10, (1ull << 32) + 5) == Order{1, 4, 9, 6, 3, 5, 0, 2, 8, 7});
    CHECK(torch_randperm(10, (1ull << 40) + 7) == Order{5, 0, 3, 4, 1, 7, 9, 6, 8, 2});
}

TEST_CASE("long permutations are torch's") {
    const auto thousand = torch_randperm(1000, 0), long_one = torch_randperm(100003, 7);
    CHECK(thousand.front() == 44);
    CHECK(thousand.back() == 354);
    CHECK(fold(thousand) == 15473190501917610308ull);
    CHECK(long_one.front() == 31784);
    CHECK(long_one.back() == 96600);
    CHECK(fold(long_one) == 16731332434055168198ull);
}
