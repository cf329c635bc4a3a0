#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "eyas/core/file.hpp"
#include "eyas/core/line_file.hpp"
#include "scratch.hpp"
#include "tests/core/small_files.hpp"

using namespace eyas;
namespace fs = std::filesystem;

namespace {
bool only_file(const fs::path& dir, const std::string& name) {
    const fs::directory_iterator all(dir);
    return std::distance(begin(all), end(all)) == 1 && fs::exists(dir / name);
}
}  // namespace

TEST_CASE("without commit nothing is left, and what was there stays") {
    const test::Scratch scratch;
    const auto path = scratch.path() / "a";
    write_text_file(path, "old");
    {
        AtomicFile f(path);
        f.write("new");
    }
    CHECK(read_text_file(path) == "old");
    CHECK(only_file(scratch.path(), "a"));
}

TEST_CASE("a disk that fills up leaves the old file alone and removes the new one") {
    const test::Scratch scratch;
    const auto path = scratch.path() / "a";
    write_text_file(path, "old");
    const std::string large(100'000, 'x');
    std::string message;
    {
        const test::SmallFiles limit(4096);
        try {
            write_text_file(path, large);
        } catch (const ResourceError& e) {
            message = e.what();
        }
    }
    CHECK_THAT(message, Catch::Contains(path.string()) && Catch::Contains("cannot write"));
    CHECK(read_text_file(path) == "old");
    CHECK(only_file(scratch.path(), "a"));
}

TEST_CASE("a writer that is killed leaves the old file whole") {
    const test::Scratch scratch;
    const auto path = scratch.path() / "a";
    write_text_file(path, "old");
    const auto child = ::fork();
    if (child == 0) {
        AtomicFile f(path);
        f.write("new, but never finished");
        ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    CHECK(read_text_file(path) == "old");
    write_text_file(path, "after it");  // and its temporary is in nobody's way
    CHECK(read_text_file(path) == "after it");
}

TEST_CASE("a name that cannot be taken is an error that leaves no temporary") {
    const test::Scratch scratch;
    fs::create_directories(scratch.path() / "a/occupied");
    CHECK_THROWS_AS(write_text_file(scratch.path() / "a", "x"), ResourceError);
    CHECK(only_file(scratch.path(), "a"));
    CHECK_THROWS_AS(write_text_file(scratch.path() / "none/a", "x"), DataError);
    CHECK_THROWS_WITH(write_text_file(scratch.path() / "none/a", "x"), Catch::Contains("none/a"));
}

TEST_CASE("what is not a readable file is refused by name") {
    const test::Scratch scratch;
    CHECK_THROWS_AS(MappedFile(scratch.path() / "none"), DataError);
    CHECK_THROWS_WITH(MappedFile(scratch.path() / "none"), Catch::Contains("none"));
    CHECK_THROWS_AS(MappedFile(scratch.path()), DataError);
    write_text_file(scratch.path() / "file", "x");
    CHECK_THROWS_AS(eyas::create_directories(scratch.path() / "file/below"), ResourceError);
}

TEST_CASE("a line file that its writers remove at their end never has two of them") {
    const test::Scratch scratch;
    const auto path = scratch.path() / "a";
    std::atomic<int> writers{0}, turns{0};
    std::atomic<bool> shared{false};
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&] {
            for (int i = 0; i < 2000; ++i) try {
                    const LineFile file(path, false, "busy", "Wait");
                    if (++writers > 1) shared = true;
                    ++turns;
                    std::this_thread::yield();
                    --writers;
                    ::unlink(path.c_str());
                } catch (const ResourceError&) {
                }
        });
    threads.clear();
    CHECK_FALSE(shared);
    CHECK(turns > 0);
}
