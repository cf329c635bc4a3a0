#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <random>

#include "eyas/core/file.hpp"
#include "eyas/ledger/ledger.hpp"
#include "tests/sample/stream_samples.hpp"

using namespace eyas;
using namespace eyas::test;
using Catch::Matchers::Contains;

namespace {
void take(Ledger& ledger, int i) {
    const auto ref = stream_ref(i);
    const SampleRef* refs[] = {&ref};
    ledger.taken(refs, i + 1);
    ledger.freed(refs);
}

void sql(const std::filesystem::path& path, const char* text) {
    detail::Database(path, detail::Database::Access::Write).run(text);
}
}  // namespace

TEST_CASE("a ledger whose writer is killed at any time is whole, and says all that was told") {
    Scratch scratch;
    for (int round = 0; round < 8; ++round) {
        const auto path = scratch.path() / std::to_string(round);
        int ends[2];
        REQUIRE(::pipe(ends) == 0);
        const auto child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            Ledger ledger(path, "a");
            for (signed char i = 0; i < 100; ++i) {
                take(ledger, i);
                if (::write(ends[1], &i, 1) != 1) ::_exit(1);
            }
            ::_exit(0);
        }
        signed char last = -1;  // the newest sample that the child says is on disk
        while (last < 3 * round && ::read(ends[0], &last, 1) == 1) {
        }
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
        ::close(ends[1]);
        for (signed char c; ::read(ends[0], &c, 1) == 1;) last = c;
        ::close(ends[0]);
        const auto before = Ledger::read(path);
        CHECK(before.freed >= last + 1);
        CHECK(before.acknowledged >= before.freed);
        CHECK(before.acknowledged <= before.freed + 1);
        Ledger again(path, "a");
        CHECK(again.summary().freed == before.freed);
        take(again, 200);
        CHECK(again.is_freed(stream_ref(200)));
    }
}

TEST_CASE("files that are no ledger are refused and not changed") {
    Scratch scratch;
    const auto path = scratch.path() / "l";
    SECTION("text") { write_text_file(path, std::string(5000, 'x')); }
    SECTION("another program's database") { sql(path, "CREATE TABLE t(x)"); }
    SECTION("another application's id") { sql(path, "PRAGMA application_id = 7"); }
    SECTION("a ledger's id and nothing else") {
        sql(path, "PRAGMA application_id = 1702453619; PRAGMA user_version = 1");
    }
    SECTION("a later version") {
        { Ledger ledger(path, "a"); }
        sql(path, "PRAGMA user_version = 2");
    }
    SECTION("tables of other columns") {
        sql(path,
            "PRAGMA application_id = 1702453619; PRAGMA user_version = 1;"
            "CREATE TABLE run(x); CREATE TABLE sample(y)");
    }
    const auto before = read_text_file(path);
    CHECK_THROWS_AS(Ledger(path, "a"), DataError);
    CHECK_THROWS_AS(Ledger::read(path), DataError);
    CHECK(read_text_file(path) == before);
}

TEST_CASE("a ledger that is not there cannot be read") {
    Scratch scratch;
    CHECK_THROWS_AS(Ledger::read(scratch.path() / "none"), ResourceError);
    CHECK_FALSE(std::filesystem::exists(scratch.path() / "none"));
    CHECK_THROWS_AS(Ledger(scratch.path() / "no" / "directory", "a"), ResourceError);
}

TEST_CASE("flipped bytes and cuts are errors of ours or go unnoticed; they never crash") {
    Scratch scratch;
    const auto good = scratch.path() / "good", bad = scratch.path() / "bad";
    {
        Ledger ledger(good, "a");
        for (int i = 0; i < 60; ++i) take(ledger, i);
    }
    const auto bytes = read_text_file(good);
    std::mt19937 random(3);
    int refused = 0;
    for (int n = 0; n < 150; ++n) {
        auto damaged = bytes;
        if (n % 3 == 0)
            damaged.resize(random() % damaged.size());
        else
            for (int k = 0; k < 20; ++k)
                damaged[random() % damaged.size()] = static_cast<char>(random());
        for (const char* suffix : {"", "-wal", "-shm"})
            std::filesystem::remove(bad.string() + suffix);
        write_text_file(bad, damaged);
        try {
            Ledger ledger(bad, "a");
            (void)ledger.is_freed(stream_ref(5));
            take(ledger, 100);
        } catch (const Error&) {
            ++refused;
        }
    }
    CHECK(refused > 50);
}

TEST_CASE("a ledger that another process holds is told as busy") {
    Scratch scratch;
    const auto path = scratch.path() / "l";
    Ledger ledger(path, "a");
    detail::Database other(path, detail::Database::Access::Write);
    const detail::Transaction held(other);
    CHECK_THROWS_AS(ledger.taken({}, 1), ResourceError);
    CHECK(Ledger::read(path).run == "a");  // readers do not wait
}
