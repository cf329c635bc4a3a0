#include "eyas/core/file.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

#include "scratch.hpp"

using namespace eyas;
namespace fs = std::filesystem;

namespace {
std::size_t entries(const fs::path& dir) {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(dir), fs::directory_iterator()));
}
}  // namespace

TEST_CASE("an atomic file appears at commit and not before") {
    const test::Scratch scratch;
    const auto path = scratch.path() / "a";
    for (const bool durable : {true, false}) {
        AtomicFile f(path, durable);
        f.write("half");
        CHECK(fs::exists(f.temporary()));
        CHECK(fs::exists(path) == !durable);  // false at first; the second round replaces
        f.write(" and half");
        f.commit();
        CHECK(read_text_file(path) == "half and half");
        CHECK(entries(scratch.path()) == 1);
    }
}

TEST_CASE("commit_new takes a free name that is known only at the end, and no other") {
    const test::Scratch scratch;
    AtomicFile f(scratch.path() / "pending");
    f.write("x");
    write_text_file(scratch.path() / "a", "another's");
    REQUIRE_FALSE(f.commit_new(scratch.path() / "a"));
    CHECK(read_text_file(scratch.path() / "a") == "another's");
    std::filesystem::create_symlink("nowhere", scratch.path() / "c");
    REQUIRE_FALSE(f.commit_new(scratch.path() / "c"));
    REQUIRE(f.commit_new(scratch.path() / "b"));
    CHECK(f.path() == scratch.path() / "b");
    CHECK(read_text_file(scratch.path() / "b") == "x");
    CHECK(entries(scratch.path()) == 3);
}

TEST_CASE("two writers of one name do not disturb each other: the last commit stays") {
    const test::Scratch scratch;
    const auto path = scratch.path() / "a";
    AtomicFile one(path), two(path);
    CHECK(one.temporary() != two.temporary());
    one.write("one");
    two.write("two");
    two.commit();
    one.commit();
    CHECK(read_text_file(path) == "one");
    CHECK(entries(scratch.path()) == 1);
}

TEST_CASE("a reader keeps the old bytes when the file is replaced or removed") {
    const test::Scratch scratch;
    const auto path = scratch.path() / "a";
    write_text_file(path, "old");
    auto first = std::make_unique<MappedFile>(path);
    const MappedFile copy = *first;
    write_text_file(path, "new!");
    first.reset();
    fs::remove(path);
    REQUIRE(copy.bytes().size() == 3);
    CHECK(static_cast<char>(copy.bytes()[0]) == 'o');
}

TEST_CASE("empty files map to no bytes") {
    const test::Scratch scratch;
    write_text_file(scratch.path() / "a", "");
    CHECK(MappedFile(scratch.path() / "a").bytes().empty());
    CHECK(read_text_file(scratch.path() / "a").empty());
    CHECK(MappedFile().bytes().empty());
}

TEST_CASE("all bytes survive, zero bytes too") {
    const test::Scratch scratch;
    std::string all;
    for (int i = 0; i < 256 * 300; ++i) all += static_cast<char>(i % 256);
    write_text_file(scratch.path() / "a", all);
    CHECK(read_text_file(scratch.path() / "a") == all);
}

TEST_CASE("directories are made with their parents, and again") {
    const test::Scratch scratch;
    eyas::create_directories(scratch.path() / "x/y/z");
    eyas::create_directories(scratch.path() / "x/y/z");
    CHECK(fs::is_directory(scratch.path() / "x/y/z"));
}
