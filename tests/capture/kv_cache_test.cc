#include "eyas/capture/kv_cache.hpp"

#include <catch2/catch.hpp>
#include <utility>

using namespace eyas;

namespace {

constexpr HeadShape shape{4, 2, 6};
constexpr std::int64_t layers = 3;

/// Stores a key and a value that are told apart by layer, head, number and `mark`.
void store(KvCache& cache, const KvCache::Sequence& s, std::int64_t slot, float mark) {
    for (std::int64_t l = 0; l < layers; ++l) {
        float key[12], value[12];
        for (int i = 0; i < 12; ++i) {
            key[i] = mark + static_cast<float>(100 * l + i);
            value[i] = -key[i];
        }
        cache.store(s, l, slot, key, value);
    }
}

bool holds(const KvCache& cache, const KvCache::Sequence& s, std::int64_t slot, float mark) {
    for (std::int64_t l = 0; l < layers; ++l) {
        std::vector<const float*> blocks;
        cache.blocks(s, l, slot + 1, blocks);
        const float* page = blocks.back();
        for (std::int64_t g = 0; g < 2; ++g, page += shape.block_size())
            for (std::int64_t e = 0; e < 6; ++e) {
                const auto want = mark + static_cast<float>(100 * l + g * 6 + e);
                if (page[e * key_block + slot % key_block] != want) return false;
                if (page[(key_block + slot % key_block) * 6 + e] != -want) return false;
            }
    }
    return true;
}

}  // namespace

TEST_CASE("a cache gives pages until it has no more, and takes them back", "[kv]") {
    KvCache cache(layers, shape, 65);  // rounded up: five pages
    KvCache::Sequence a, b;
    CHECK(cache.pages_left() == 5);
    CHECK(cache.reserve(a, 17));
    CHECK(cache.pages_in_use() == 2);
    CHECK(cache.reserve(a, 32));  // they are there
    CHECK(cache.pages_in_use() == 2);
    CHECK(cache.reserve(b, 48));
    CHECK(cache.pages_left() == 0);
    CHECK_FALSE(cache.reserve(a, 33));
    CHECK(cache.pages_in_use() == 5);
    cache.release(b);
    CHECK(cache.pages_left() == 3);
    CHECK_FALSE(cache.reserve(a, 81));  // and then nothing is taken
    CHECK(cache.pages_left() == 3);
    CHECK(cache.reserve(a, 80));
    cache.release(a);
    CHECK(cache.pages_in_use() == 0);
    CHECK(cache.page_bytes() == layers * 2 * 2 * 16 * 6 * 4);
}

TEST_CASE("a sequence of no tokens has no page", "[kv]") {
    KvCache cache(layers, shape, 0);
    KvCache::Sequence s;
    CHECK(cache.reserve(s, 0));
    CHECK_FALSE(cache.reserve(s, 1));
}

TEST_CASE("what is stored stays in its slot while others come and go", "[kv]") {
    KvCache cache(layers, shape, 96);
    KvCache::Sequence a, b, c;
    REQUIRE(cache.reserve(a, 20));
    REQUIRE(cache.reserve(b, 20));
    for (std::int64_t i = 0; i < 20; ++i) {
        store(cache, a, i, static_cast<float>(1000 * i));
        store(cache, b, i, static_cast<float>(1000 * i + 500));
    }
    cache.release(b);
    REQUIRE(cache.reserve(a, 60));  // takes b's pages
    REQUIRE(cache.reserve(c, 10));
    for (std::int64_t i = 20; i < 60; ++i) store(cache, a, i, static_cast<float>(1000 * i));
    for (std::int64_t i = 0; i < 10; ++i) store(cache, c, i, 7);
    for (std::int64_t i = 0; i < 60; ++i) CHECK(holds(cache, a, i, static_cast<float>(1000 * i)));
    auto moved = std::move(a);
    CHECK(holds(cache, moved, 59, 59000));
}

TEST_CASE("keep moves the accepted slots behind the sequence", "[kv]") {
    KvCache cache(layers, shape, 64);
    KvCache::Sequence s;
    REQUIRE(cache.reserve(s, 40));
    for (std::int64_t i = 0; i < 40; ++i) store(cache, s, i, static_cast<float>(1000 * i));
    cache.append(s, 14);
    const std::int64_t slots[] = {14, 15, 18, 30, 31};
    cache.keep(s, slots);
    CHECK(s.length() == 19);
    for (std::int64_t i = 0; i < 16; ++i) CHECK(holds(cache, s, i, static_cast<float>(1000 * i)));
    CHECK(holds(cache, s, 16, 18000));
    CHECK(holds(cache, s, 17, 30000));
    CHECK(holds(cache, s, 18, 31000));
}

TEST_CASE("truncate forgets, and never lengthens", "[kv]") {
    KvCache cache(layers, shape, 64);
    KvCache::Sequence s;
    REQUIRE(cache.reserve(s, 30));
    cache.append(s, 30);
    cache.truncate(s, 40);
    CHECK(s.length() == 30);
    cache.truncate(s, 3);
    CHECK(s.length() == 3);
    CHECK(cache.pages_in_use() == 2);  // its pages stay its own
    cache.release(s);
    CHECK(s.length() == 0);
}
