#include "eyas/loader/loader.hpp"

#include <catch2/catch.hpp>

#include "tests/loader/loader_run.hpp"

using namespace eyas;
using test::FakeSample;
using test::FakeStore;
using test::fill;
using test::ids_of_run;
using test::options;

static_assert(SampleSource<FakeStore>);

TEST_CASE("a run visits the sampler's order, whatever the prefetch and the threads") {
    FakeStore store;
    const auto m = fill(store, 7);
    for (const auto& [prefetch, threads] :
         {std::pair{0, 1}, {1, 1}, {2, 1}, {8, 1}, {1, 2}, {8, 4}}) {
        auto o = options(2, prefetch, 3);
        o.threads = threads;
        store.delay = std::chrono::milliseconds(threads > 1 ? 1 : 0);
        Loader loader(store, m, o);
        CHECK(loader.batches_per_epoch() == 3);
        std::vector<std::vector<std::string>> want;
        for (int epoch = 0; epoch < 3; ++epoch) {
            const auto order = epoch_order(7, 0, epoch);
            for (std::size_t b = 0; b + 1 < 7; b += 2)
                want.push_back(
                    {"s:" + std::to_string(order[b]), "s:" + std::to_string(order[b + 1])});
        }
        CHECK(ids_of_run(loader) == want);
        CHECK(loader.next() == nullptr);
        CHECK(loader.position() == LoaderPosition{3, 0});
        CHECK(store.leased == 0);
    }
}

TEST_CASE("drop_last false keeps the short batch") {
    FakeStore store;
    auto o = options(3);
    o.shuffle = o.drop_last = false;
    Loader loader(store, fill(store, 7), o);
    CHECK(loader.batches_per_epoch() == 3);
    CHECK(ids_of_run(loader) == std::vector<std::vector<std::string>>{
                                    {"s:0", "s:1", "s:2"}, {"s:3", "s:4", "s:5"}, {"s:6"}});
}

TEST_CASE("ranks share the samples") {
    FakeStore store;
    const auto m = fill(store, 7);
    for (std::int64_t rank : {0, 1, 2}) {
        auto o = options(1);
        o.rank = rank;
        o.world = 3;
        Loader loader(store, m, o);
        std::vector<std::vector<std::string>> want;
        for (const auto i : epoch_order(7, 0, 0, rank, 3))
            want.push_back({"s:" + std::to_string(i)});
        CHECK(ids_of_run(loader) == want);
    }
}

TEST_CASE("seek makes any position the next one, exactly") {
    FakeStore store;
    const auto m = fill(store, 7);
    Loader whole(store, m, options(2, 2, 2));
    const auto all = ids_of_run(whole);
    REQUIRE(all.size() == 6);
    Loader loader(store, m, options(2, 2, 2));
    for (const std::size_t at : {4u, 0u, 5u, 3u, 1u}) {
        const auto n = static_cast<std::int64_t>(at);
        loader.seek({n / 3, n % 3});
        CHECK(loader.position() == LoaderPosition{n / 3, n % 3});
        CHECK(loader.next()->sample_ids == all[at]);
    }
    CHECK(loader.position() == LoaderPosition{0, 2});
    loader.seek({0, 3});  // the end of an epoch is the start of the next
    CHECK(loader.position() == LoaderPosition{1, 0});
    loader.seek({2, 0});
    CHECK(loader.next() == nullptr);
    CHECK_THROWS_AS(loader.seek({2, 1}), ContractError);
    CHECK_THROWS_AS(loader.seek({0, 4}), ContractError);
    CHECK_THROWS_AS(loader.seek({-1, 0}), ContractError);
}

TEST_CASE("ahead() shows the batch that next() returns next, and changes nothing") {
    FakeStore store;
    const auto m = fill(store, 7);
    Loader loader(store, m, options(2, 2, 2));
    CHECK(loader.ahead() == nullptr);  // nothing is read before the first next()
    const auto first = loader.next()->number;
    CHECK(first != 0);
    for (int left = 5; left > 0; --left) {
        const Batch* shown = nullptr;
        while (!shown) shown = loader.ahead();  // a thread is reading it
        const auto number = shown->number;
        const auto ids = shown->sample_ids;
        CHECK(loader.ahead() == shown);
        const Batch* next = loader.next();
        CHECK(next == shown);
        CHECK(next->number == number);
        CHECK(next->sample_ids == ids);
        CHECK(number > first);
    }
    CHECK(loader.ahead() == nullptr);
    CHECK(loader.next() == nullptr);
    Loader at_once(store, m, options(2, 0, 1));  // reads when next() is called
    CHECK(at_once.next());
    CHECK(at_once.ahead() == nullptr);
    loader.seek({0, 1});
    CHECK(loader.ahead() == nullptr);
    CHECK(loader.next());
}

TEST_CASE("ahead() shows no batch that failed") {
    FakeStore store;
    const auto m = fill(store, 4);
    auto o = options(2, 3, 1);
    o.shuffle = false;
    store.fail_read = "s:2";
    Loader loader(store, m, o);
    CHECK(loader.next());
    CHECK_THROWS_AS(loader.next(), DataError);  // so it has been read, if that is the word
    CHECK(loader.ahead() == nullptr);
}

TEST_CASE("arenas are reused: no allocation of batch memory once warm") {
    FakeStore store;
    auto o = options(2, 1, 20);
    Loader loader(store, fill(store, 6), o);
    std::set<const std::byte*> targets;
    int late = 0;
    for (int i = 0; const auto* b = loader.next(); ++i) {
        const bool fresh = targets.insert(b->target.data).second;
        if (i >= 12) late += fresh;  // every arena has seen the longest batch by then
    }
    CHECK(late == 0);
}

TEST_CASE("all batches lie in one ring of the configured size, which is registered once") {
    FakeStore store;
    const auto m = fill(store, 6);
    auto o = options(2, 2);
    SECTION("as large as the largest batch needs") {}
    SECTION("as it was given") { o.ring_bytes = 3 * 8192; }
    SECTION("too small for the largest batch") {
        o.ring_bytes = 3 * 4096 - 1;
        CHECK_THROWS_AS(Loader(store, m, o), ContractError);
        CHECK_THROWS_WITH(Loader(store, m, o), Catch::Matchers::Contains("ring_bytes") &&
                                                   Catch::Matchers::Contains("at least 12288"));
        CHECK(store.regions.empty());
        return;
    }
    {
        Loader loader(store, m, o);
        REQUIRE(store.regions.size() == 1);
        const auto ring = store.regions[0];
        CHECK(ring.size() == static_cast<std::size_t>(o.ring_bytes ? o.ring_bytes : 3 * 4096));
        while (const auto* b = loader.next())
            for (const auto* t :
                 {&b->input_ids, &b->attention_mask, &b->loss_mask, &b->hidden_state, &b->target}) {
                CHECK(t->data >= ring.data());
                CHECK(t->data + t->size_bytes() <= ring.data() + ring.size());
            }
        CHECK(store.registered == 1);
    }
    CHECK(store.registered == 0);
}

TEST_CASE("refs that do not tell their size make batches that fit a given ring, or an error") {
    FakeStore store;
    auto m = fill(store, 6);
    for (auto& r : m.refs) r.feature_specs.clear();
    auto o = options(6, 1);
    Loader grows(store, m, o);
    CHECK(grows.next() != nullptr);
    CHECK(store.regions.empty());
    o.ring_bytes = 2 * 4096;
    o.batch_size = 2;
    Loader fits(store, m, o);
    CHECK(fits.next() != nullptr);
    o.batch_size = 6;
    FakeStore wide;
    auto large = fill(wide, 6, 100);
    for (auto& r : large.refs) r.feature_specs.clear();
    Loader exceeds(wide, large, o);
    CHECK_THROWS_AS(exceeds.next(), ResourceError);
    CHECK(wide.leased == 0);
}

TEST_CASE("samples longer than max_len are cut and the batch is as collate() makes it") {
    FakeStore store;
    auto o = options(3);
    o.shuffle = false;
    o.max_len = 6;
    auto m = fill(store, 3);  // 5, 6 and 7 rows
    SECTION("shapes from the specs") {}
    SECTION("shapes from the data") {
        for (auto& r : m.refs) r.feature_specs.clear();
    }
    Loader loader(store, m, o);
    const auto* b = loader.next();
    REQUIRE(b);
    std::vector<FakeSample> samples;
    for (int i = 0; i < 3; ++i) samples.emplace_back(5 + i, 4, i + 1);
    std::vector<SampleFeatures> features;
    for (const auto& s : samples) features.push_back({"x", s.tensors});
    BatchArena arena;
    collate(features, 6, arena);
    const auto& want = arena.batch();
    for (const auto member : {&Batch::input_ids, &Batch::attention_mask, &Batch::loss_mask,
                              &Batch::hidden_state, &Batch::target}) {
        const auto &x = b->*member, &y = want.*member;
        REQUIRE(x.shape == y.shape);
        CHECK(std::ranges::equal(x.bytes(), y.bytes()));
    }
    CHECK(b->tokens() == 6);
}

TEST_CASE("the stall time is the time that next() waited") {
    FakeStore store;
    store.delay = std::chrono::milliseconds(10);
    Loader loader(store, fill(store, 4), options(1, 0));
    while (loader.next()) {
    }
    CHECK(loader.stall_seconds() >= 0.04);  // four reads of at least 10 ms each, nothing ahead
}
