#include <catch2/catch.hpp>

#include "eyas/loader/loader.hpp"
#include "tests/loader/fake_store.hpp"

using namespace eyas;
using test::FakeSample;
using test::FakeStore;

namespace {

Manifest small_ones(FakeStore& store, int samples) {
    Manifest m;
    for (int i = 0; i < samples; ++i)
        m.refs.push_back(store.put({.sample_id = "s:" + std::to_string(i), .run_id = "s"},
                                   FakeSample(4, 2, i + 1).tensors));
    return m;
}

LoaderOptions in_order(std::int64_t prefetch) {
    LoaderOptions o;
    o.shuffle = false;
    o.prefetch = prefetch;
    return o;
}

}  // namespace

TEST_CASE("a sample that cannot be read throws in its turn, with its id, until seek") {
    for (const auto& [prefetch, threads] : {std::pair{0, 1}, {1, 1}, {4, 1}, {4, 3}}) {
        FakeStore store;
        const auto m = small_ones(store, 5);
        store.fail_read = "s:2";
        auto o = in_order(prefetch);
        o.threads = threads;
        Loader loader(store, m, o);
        CHECK(loader.next()->sample_ids[0] == "s:0");
        CHECK(loader.next()->sample_ids[0] == "s:1");
        for (int again = 0; again < 2; ++again)
            CHECK_THROWS_WITH(loader.next(), Catch::Matchers::Contains("sample 's:2'") &&
                                                 Catch::Matchers::Contains("checksum mismatch"));
        CHECK_THROWS_AS(loader.next(), DataError);
        CHECK(loader.position() == LoaderPosition{0, 2});
        if (threads == 1) CHECK(store.leased == 0);  // others may have read what follows
        loader.seek({0, 3});
        CHECK(store.leased == 0);
        CHECK(loader.next()->sample_ids[0] == "s:3");
    }
}

TEST_CASE("the type of a store's error is kept") {
    FakeStore store;
    const auto m = small_ones(store, 3);
    store.consumed.insert("s:1");
    Loader loader(store, m, in_order(2));
    loader.next();
    CHECK_THROWS_AS(loader.next(), StaleReferenceError);
}

TEST_CASE("destruction does not wait for the rest of the data") {
    FakeStore store;
    const auto m = small_ones(store, 200);
    store.delay = std::chrono::milliseconds(5);
    const auto start = std::chrono::steady_clock::now();
    {
        auto o = in_order(100);
        Loader loader(store, m, o);
        loader.next();
    }
    // All 200 reads would take a second.
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::milliseconds(500));
    CHECK(store.leased == 0);
    CHECK(store.released.empty());
}

TEST_CASE("a loader that was never used, or stands at its end, is destroyed at once") {
    FakeStore store;
    const auto m = small_ones(store, 3);
    { Loader unused(store, m, in_order(2)); }
    Loader finished(store, m, in_order(2));
    while (finished.next()) {
    }
    CHECK(store.reads == 3);
}

TEST_CASE("manifests that are not one model's EAGLE3 samples are refused before any read") {
    FakeStore store;
    auto m = small_ones(store, 3);
    SECTION("another strategy") { m.refs[1].strategy = "dflash"; }
    SECTION("another target representation") { m.refs[1].metadata["target_repr"] = "logits"; }
    SECTION("a missing feature") { m.refs[1].feature_specs.pop_back(); }
    SECTION("another width") {
        m.refs[1] = store.put({.sample_id = "s:1", .run_id = "s"}, FakeSample(4, 3, 1).tensors);
    }
    SECTION("another dtype") {
        m.refs[1] =
            store.put({.sample_id = "s:1", .run_id = "s"}, FakeSample(4, 2, 1, DType::F32).tensors);
    }
    CHECK_THROWS_AS(Loader(store, m, in_order(1)), DataError);
    CHECK_THROWS_WITH(Loader(store, m, in_order(1)), Catch::Matchers::Contains("s:1"));
    CHECK(store.reads == 0);
}

TEST_CASE("without specs the same is found when the sample is read") {
    FakeStore store;
    auto m = small_ones(store, 3);
    m.refs[1] = store.put({.sample_id = "s:1", .run_id = "s"}, FakeSample(4, 3, 1).tensors);
    for (auto& r : m.refs) r.feature_specs.clear();
    auto o = in_order(1);
    o.batch_size = 3;
    Loader loader(store, m, o);
    CHECK_THROWS_WITH(loader.next(), Catch::Matchers::Contains("sample 's:1'"));
}

TEST_CASE("options that make no batch are refused") {
    FakeStore store;
    const auto m = small_ones(store, 3);
    auto o = in_order(1);
    SECTION("batch larger than the data") { o.batch_size = 4; }
    SECTION("zero batch") { o.batch_size = 0; }
    SECTION("zero length") { o.max_len = 0; }
    SECTION("rank outside") { o.rank = 1; }
    SECTION("negative prefetch") { o.prefetch = -1; }
    CHECK_THROWS_AS(Loader(store, m, o), ContractError);
    CHECK_THROWS_AS(Loader(store, Manifest{}, in_order(1)), ContractError);
}
