#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <future>
#include <thread>

#include "eyas/loader/loader.hpp"
#include "eyas/sample/stream_writer.hpp"
#include "tests/loader/fake_store.hpp"
#include "tests/store/scratch.hpp"

using namespace eyas;
using namespace eyas::test;
using Catch::Matchers::Contains;

namespace {

/// Samples "s:0", "s:1", … put into a store and told in a stream, one by one.
struct Producer {
    Scratch scratch = {};
    std::filesystem::path path = scratch.path() / "s.jsonl";
    FakeStore store = {};
    ManifestStreamWriter writer{path, {.durable = false, .producer = "a test"}};
    int told = 0;

    void tell(int n, std::int64_t width = 4) {
        for (int i = 0; i < n; ++i, ++told)
            writer.append(store.put({.sample_id = "s:" + std::to_string(told), .run_id = "s"},
                                    FakeSample(5 + told % 3, width, told + 1).tensors));
    }
};

LoaderOptions in_order(std::int64_t batch, std::int64_t prefetch = 2, std::int64_t threads = 1) {
    LoaderOptions o;
    o.batch_size = batch;
    o.prefetch = prefetch;
    o.threads = threads;
    o.shuffle = false;
    return o;
}

using Ids = std::vector<std::vector<std::string>>;
Ids rest_of(Loader<FakeStore>& loader) {
    Ids out;
    while (const auto* b = loader.next()) out.push_back(b->sample_ids);
    return out;
}
}  // namespace

TEST_CASE("a loader that follows a stream waits for refs and ends with it") {
    for (const auto& [prefetch, threads] : {std::pair{0, 1}, {2, 1}, {6, 3}}) {
        Producer p;
        FollowedStream stream(p.path);
        REQUIRE(stream.open());
        CHECK(stream.header() == p.writer.header());
        Loader loader(p.store, stream, in_order(2, prefetch, threads));
        CHECK(loader.batches_per_epoch() == 0);
        p.tell(2);
        CHECK(loader.next()->sample_ids == std::vector<std::string>{"s:0", "s:1"});
        std::thread later([&] {
            p.tell(4);
            p.writer.finish();
        });
        const auto rest = rest_of(loader);
        later.join();
        CHECK(rest == Ids{{"s:2", "s:3"}, {"s:4", "s:5"}});
        CHECK_FALSE(loader.interrupted());
        CHECK(loader.next() == nullptr);
        CHECK(loader.position() == LoaderPosition{0, 3});
        CHECK(p.store.leased == 0);
    }
}

TEST_CASE("the batches are those of the finished manifest, also from the middle") {
    Producer p;
    p.tell(7);
    p.writer.finish();
    for (const bool drop_last : {true, false}) {
        auto o = in_order(2);
        o.drop_last = drop_last;
        Loader whole(p.store, read_manifest(p.path), o);
        const auto want = rest_of(whole);
        REQUIRE(want.size() == (drop_last ? 3 : 4));
        FollowedStream stream(p.path);
        stream.open();
        Loader loader(p.store, stream, o);
        CHECK(rest_of(loader) == want);
        for (const std::int64_t at : {3, 1, 0}) {
            loader.seek({0, at});
            CHECK(rest_of(loader) == Ids(want.begin() + at, want.end()));
        }
        CHECK_THROWS_AS(loader.seek({1, 1}), ContractError);
        CHECK_THROWS_AS(loader.seek({0, -1}), ContractError);
    }
}

TEST_CASE("what is at hand is known without waiting") {
    Producer p;
    p.tell(5);
    FollowedStream stream(p.path);
    stream.open();
    auto o = in_order(2, 0);
    Loader loader(p.store, stream, o);
    CHECK(loader.at_hand(2));
    CHECK_FALSE(loader.at_hand(3));  // half of it is there
    loader.next();
    CHECK(loader.at_hand(1));
    CHECK_FALSE(loader.at_hand(2));
    o.world = 2;  // this one's batch and the other's
    const Loader one_of_two(p.store, stream, o);
    CHECK(one_of_two.at_hand(1));
    CHECK_FALSE(one_of_two.at_hand(2));
    p.writer.finish();
    const Loader finished(p.store, read_manifest(p.path), in_order(2, 0));
    CHECK(finished.at_hand(100));  // next() never waits for a producer
}

TEST_CASE("ranks take disjoint refs, equally many, and wait for each other's") {
    Producer p;
    p.tell(5);
    std::atomic<bool> interrupt = false;
    std::vector<std::string> seen;
    const auto o_of = [](std::int64_t rank) {
        auto o = in_order(1, 0);
        o.rank = rank;
        o.world = 3;
        return o;
    };
    FollowedStream stream(p.path, {.interrupt = &interrupt});
    stream.open();
    Loader zero(p.store, stream, o_of(0));
    CHECK(zero.next()->sample_ids[0] == "s:0");
    interrupt = true;  // s:3 is there, but not what the others need beside it
    CHECK(zero.next() == nullptr);
    CHECK(zero.interrupted());
    interrupt = false;
    p.tell(3);
    CHECK(zero.next()->sample_ids[0] == "s:3");
    p.writer.finish();  // 8 refs: two rounds, and two left over
    CHECK(zero.next() == nullptr);
    for (const std::int64_t rank : {1, 2}) {
        Loader loader(p.store, stream, o_of(rank));
        const auto r = std::to_string(rank), s = std::to_string(rank + 3);
        CHECK(rest_of(loader) == Ids{{"s:" + r}, {"s:" + s}});
    }
}

TEST_CASE("an interrupted wait can be taken up again") {
    Producer p;
    p.tell(1);
    std::atomic<bool> interrupt = true;
    FollowedStream stream(p.path, {.interrupt = &interrupt});
    REQUIRE(stream.open());  // it was there
    Loader loader(p.store, stream, in_order(1, 4, 2));
    CHECK(loader.next()->sample_ids[0] == "s:0");
    CHECK(loader.next() == nullptr);
    CHECK(loader.interrupted());
    CHECK(loader.position() == LoaderPosition{0, 1});
    interrupt = false;
    p.tell(1);
    CHECK(loader.next()->sample_ids[0] == "s:1");
    CHECK_FALSE(loader.interrupted());
}

TEST_CASE("failures come in their turn, after the batches before") {
    Producer p;
    p.tell(2);
    FollowedStream stream(p.path, {.wait = std::chrono::milliseconds(200)});
    stream.open();
    Loader loader(p.store, stream, in_order(1, 3, 2));
    SECTION("the producer gave up") {
        p.writer.fail("no disk");
        loader.next();
        loader.next();
        CHECK_THROWS_AS(loader.next(), TransportError);
        CHECK_THROWS_WITH(loader.next(), Contains("the producer failed: no disk"));
    }
    SECTION("the producer is silent") {
        loader.next();
        loader.next();
        CHECK_THROWS_AS(loader.next(), TransportError);
        CHECK_THROWS_WITH(loader.next(), Contains("the producer (a test)"));
        p.tell(1);
        loader.seek(loader.position());
        CHECK(loader.next()->sample_ids[0] == "s:2");
    }
    SECTION("a sample of another width") {
        p.tell(1, 7);
        loader.next();
        loader.next();
        CHECK_THROWS_AS(loader.next(), DataError);
        CHECK_THROWS_WITH(loader.next(), Contains("s:2"));
    }
    SECTION("a bad line") {
        write_text_file(p.path, read_text_file(p.path) + "{}\n");
        loader.next();
        loader.next();
        CHECK_THROWS_WITH(loader.next(), Contains("line 4"));
    }
    CHECK(p.store.leased <= 1);
}

TEST_CASE("a loader that waits is destroyed at once") {
    Producer p;
    p.tell(1);
    FollowedStream stream(p.path);
    stream.open();
    Loader loader(p.store, stream, in_order(1, 4, 3));
    loader.next();  // its threads wait now
}

TEST_CASE("who waits for another's look at the stream is stopped all the same") {
    Producer p;
    FollowedStream stream(p.path);
    stream.open();
    std::atomic<bool> never = false, stop = false;
    auto reads = std::async(std::launch::async, [&] { return stream.await(1, never); });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    auto waits = std::async(std::launch::async, [&] { return stream.await(1, stop); });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    stop = true;
    CHECK(waits.wait_for(std::chrono::seconds(20)) == std::future_status::ready);  // not for ever
    p.tell(1);
    CHECK(reads.get() == FollowedStream::Await::There);
    CHECK(waits.get() == FollowedStream::Await::Stopped);
}

TEST_CASE("refs that came before a look failed are not lost") {
    Producer p;
    FollowedStream stream(p.path, {.wait = std::chrono::milliseconds(2000)});
    stream.open();
    // The number of files that may be open drops to none and rises again, all the time: some looks
    // fail at once, some after lines were taken.
    rlimit usual{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &usual) == 0);
    const rlimit none{0, usual.rlim_max};
    std::atomic<bool> over = false;
    std::thread trouble([&] {
        while (!over) {
            ::setrlimit(RLIMIT_NOFILE, &none);
            ::setrlimit(RLIMIT_NOFILE, &usual);
        }
    });
    const std::atomic<bool> stop = false;
    std::size_t failed = 0, got = 0;
    std::string ended;
    for (std::size_t n = 1; n <= 500 && ended.empty(); ++n) {
        p.tell(1);
        int tries = 0;
        for (bool there = false; !there && ended.empty();) try {
                there = stream.await(n, stop) == FollowedStream::Await::There;
                got = n;
            } catch (const ResourceError&) {
                ++failed;
                if (++tries > 1000) over = true;  // a lost one would never come
            } catch (const Error& e) {
                ended = e.what();
            }
    }
    over = true;
    trouble.join();
    ::setrlimit(RLIMIT_NOFILE, &usual);
    CHECK(ended == "");
    REQUIRE(got == 500);
    CHECK(failed > 0);
    for (std::size_t i = 0; i < got; ++i) REQUIRE(stream[i].sample_id == "s:" + std::to_string(i));
}

TEST_CASE("acknowledgement follows the stream, also after a resume") {
    Producer p;
    p.store.consume_once = true;
    p.tell(4);
    {
        FollowedStream stream(p.path);
        stream.open();
        Loader loader(p.store, stream, in_order(1, 3));
        loader.next();
        loader.next();
        loader.acknowledge({0, 1}, 1);
        CHECK(p.store.released == std::vector<std::string>{"s:0"});
    }
    FollowedStream stream(p.path);
    stream.open();
    Loader loader(p.store, stream, in_order(1, 3));
    loader.seek({0, 2});
    loader.acknowledge({0, 2}, 2);
    CHECK(p.store.consumed == std::set<std::string>{"s:0", "s:1"});
    p.writer.finish();
    CHECK(rest_of(loader) == Ids{{"s:2"}, {"s:3"}});
    loader.seek({0, 9});  // a stream that lost its tail
    CHECK_THROWS_WITH(loader.acknowledge({0, 9}, 9), Contains("ends before batch 4"));
}

TEST_CASE("options that a stream cannot keep are refused, and a stream that was not opened") {
    Producer p;
    FollowedStream stream(p.path);
    CHECK_THROWS_AS(stream.header(), ContractError);
    auto o = in_order(1);
    SECTION("shuffling") { o.shuffle = true; }
    SECTION("epochs") { o.epochs = 2; }
    SECTION("impossible ones") { o.batch_size = 0; }
    CHECK_THROWS_AS(Loader(p.store, stream, o), ContractError);
}
