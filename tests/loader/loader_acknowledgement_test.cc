#include <catch2/catch.hpp>

#include "eyas/loader/loader.hpp"
#include "tests/loader/loader_run.hpp"

using namespace eyas;
using test::FakeStore;
using test::fill;
using test::ids_of_run;
using test::options;

namespace {
/// A sink that keeps what it is told, and says what an earlier run told it.
struct Account final : AcknowledgementSink {
    void taken(std::span<const SampleRef* const> refs, std::int64_t step) override {
        for (const auto* r : refs) told.push_back("taken " + r->sample_id);
        steps.push_back(step);
    }
    void freed(std::span<const SampleRef* const> refs) override {
        for (const auto* r : refs) told.push_back("freed " + r->sample_id);
    }
    bool is_freed(const SampleRef& ref) const override { return before.contains(ref.sample_id); }
    std::vector<std::string> told = {};
    std::vector<std::int64_t> steps = {};
    std::set<std::string> before = {};
};
}  // namespace

TEST_CASE("samples are consumed by acknowledge(), as far as it says and no further") {
    FakeStore store;
    store.consume_once = true;
    Account account;
    auto o = options(2, 3);
    o.shuffle = false;
    o.acknowledgements = &account;
    const auto m = fill(store, 8);
    {
        Loader loader(store, m, o);
        loader.next();
        loader.next();
        const auto two = loader.position();
        loader.next();
        CHECK(store.released.empty());
        CHECK_THROWS_AS(loader.acknowledge({0, 4}, 3), ContractError);  // not used yet
        CHECK(account.steps.empty());
        loader.acknowledge(two, 2);
        CHECK(store.released == std::vector<std::string>{"s:0", "s:1", "s:2", "s:3"});
        CHECK(account.told == std::vector<std::string>{"taken s:0", "taken s:1", "taken s:2",
                                                       "taken s:3", "freed s:0", "freed s:1",
                                                       "freed s:2", "freed s:3"});
        CHECK(account.steps == std::vector<std::int64_t>{2});
        loader.acknowledge(two, 2);  // nothing twice
        CHECK(store.released.size() == 4);
        CHECK(loader.next()->sample_ids[0] == "s:6");
    }
    CHECK(store.leased == 0);
    CHECK(store.released.size() == 4);  // what was used later, or read ahead, was given back
    // A resumed run acknowledges what an earlier one did not come to, then goes on.
    account.before = {"s:0", "s:1", "s:2"};
    account.told.clear();
    Loader loader(store, m, o);
    loader.seek({0, 2});
    loader.acknowledge({0, 2}, 2);
    CHECK(store.released.size() == 5);
    CHECK(store.released.back() == "s:3");  // the others were freed before
    CHECK(ids_of_run(loader) ==
          std::vector<std::vector<std::string>>{{"s:4", "s:5"}, {"s:6", "s:7"}});
    loader.acknowledge(loader.position(), 4);
    CHECK(store.consumed.size() == 8);
}

TEST_CASE("samples that a later epoch asks for again are not consumed") {
    FakeStore store;
    store.consume_once = true;
    Loader loader(store, fill(store, 4), options(2, 1, 2));
    for (int i = 0; i < 3; ++i) {
        REQUIRE(loader.next() != nullptr);
        loader.acknowledge(loader.position(), i);
        CHECK(store.released.size() == (i < 2 ? 0u : 2u));
    }
    CHECK(loader.next() != nullptr);
    loader.acknowledge(loader.position(), 3);
    CHECK(store.consumed.size() == 4);
}

TEST_CASE("an acknowledgement that failed on the way is made again") {
    FakeStore store;
    store.consume_once = true;
    store.fail_consume = "s:1";
    auto o = options(1);
    o.shuffle = false;
    Loader loader(store, fill(store, 3), o);
    loader.next();
    loader.next();
    CHECK_THROWS_AS(loader.acknowledge(loader.position(), 1), TransportError);
    store.fail_consume.clear();
    loader.acknowledge(loader.position(), 1);
    CHECK(store.consumed == std::set<std::string>{"s:0", "s:1"});
}
