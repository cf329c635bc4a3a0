#include "eyas/ledger/ledger.hpp"

#include <catch2/catch.hpp>
#include <vector>

#include "tests/sample/stream_samples.hpp"

using namespace eyas;
using namespace eyas::test;
using Catch::Matchers::Contains;

namespace {
struct Refs {
    std::vector<SampleRef> all = {};
    std::vector<const SampleRef*> pointers = {};
    Refs(int first, int last) {
        for (int i = first; i < last; ++i) all.push_back(stream_ref(i));
        for (const auto& r : all) pointers.push_back(&r);
    }
    operator std::span<const SampleRef* const>() const { return pointers; }
};
}  // namespace

TEST_CASE("what was taken and freed is there after the ledger was closed") {
    Scratch scratch;
    const auto path = scratch.path() / "ledger.sqlite";
    {
        Ledger ledger(path, "run A");
        ledger.taken({}, 0);
        CHECK(ledger.summary().acknowledged == 0);
        ledger.taken(Refs(0, 3), 5);
        ledger.freed(Refs(0, 2));
        CHECK(ledger.is_freed(stream_ref(1)));
        CHECK_FALSE(ledger.is_freed(stream_ref(2)));  // taken only
        CHECK_FALSE(ledger.is_freed(stream_ref(3)));
    }
    Ledger ledger(path, "run A");
    ledger.taken(Refs(0, 4), 9);  // samples come again at a resume
    const auto s = ledger.summary();
    CHECK(s.run == "run A");
    CHECK(s.acknowledged == 4);
    CHECK(s.freed == 2);
    CHECK(s.last_step == 9);
    const auto read = Ledger::read(path);  // while it is open
    CHECK(read.acknowledged == 4);
    CHECK(read.freed == 2);
}

TEST_CASE("generations of one sample are told apart") {
    Scratch scratch;
    Ledger ledger(scratch.path() / "l", "a");
    auto newer = stream_ref(0);
    newer.metadata["generation"] = 2;
    const SampleRef* refs[] = {&newer};
    ledger.taken(refs, 1);
    ledger.freed(refs);
    CHECK(ledger.is_freed(newer));
    CHECK_FALSE(ledger.is_freed(stream_ref(0)));
}

TEST_CASE("a ledger of another run is refused") {
    Scratch scratch;
    { Ledger ledger(scratch.path() / "l", "a"); }
    CHECK_THROWS_AS(Ledger(scratch.path() / "l", "b"), ContractError);
    CHECK_THROWS_WITH(Ledger(scratch.path() / "l", "b"), Contains("another run: a"));
}

TEST_CASE("a run that goes on from before what was freed is told") {
    Scratch scratch;
    Ledger ledger(scratch.path() / "l", "a");
    ledger.taken(Refs(0, 2), 10);
    CHECK_NOTHROW(ledger.taken({}, 5));  // nothing is lost yet: they are still in the store
    CHECK(ledger.summary().acknowledged == 0);
    ledger.taken(Refs(0, 2), 10);
    ledger.freed(Refs(0, 1));
    CHECK_NOTHROW(ledger.taken({}, 10));
    CHECK_THROWS_AS(ledger.taken({}, 5), DataError);
}

TEST_CASE("a run that goes on from before a damaged checkpoint is not held against later") {
    Scratch scratch;
    Ledger ledger(scratch.path() / "l", "a");
    ledger.taken(Refs(0, 2), 100);
    ledger.freed(Refs(0, 2));
    ledger.taken(Refs(2, 6), 200);  // killed before they were freed; checkpoint 200 is damaged
    ledger.taken({}, 100);
    CHECK(ledger.summary().last_step == 100);
    ledger.taken(Refs(2, 4), 150);
    ledger.freed(Refs(2, 4));
    CHECK(ledger.summary().last_step == 150);
    CHECK_NOTHROW(ledger.taken(Refs(4, 5), 170));
    CHECK(ledger.summary().acknowledged == 5);
    CHECK(ledger.summary().freed == 4);
    CHECK_THROWS_AS(ledger.taken({}, 149), DataError);
}

TEST_CASE("a sample that comes again has the step of its last checkpoint, until it is freed") {
    Scratch scratch;
    Ledger ledger(scratch.path() / "l", "a");
    ledger.taken(Refs(0, 1), 10);
    ledger.taken(Refs(0, 1), 20);
    ledger.freed(Refs(0, 1));
    CHECK(ledger.summary().last_step == 20);
    ledger.taken(Refs(0, 1), 30);
    CHECK(ledger.summary().last_step == 20);
}
