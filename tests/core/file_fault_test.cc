#include <signal.h>
#include <sys/stat.h>
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

TEST_CASE("what is there and is no regular file is not replaced") {
    const test::Scratch scratch;
    const auto pipe = scratch.path() / "pipe";
    REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
    CHECK_THROWS_AS(write_text_file(pipe, "x"), ResourceError);
    CHECK_THROWS_WITH(write_text_file(pipe, "x"), Catch::Contains(pipe.string()) &&
                                                      Catch::Contains("not a regular file") &&
                                                      Catch::Contains("Name a file"));
    CHECK(fs::is_fifo(pipe));
    CHECK(only_file(scratch.path(), "pipe"));

    const auto link = scratch.path() / "link";
    fs::create_symlink("pipe", link);
    CHECK_THROWS_AS(write_text_file(link, "x"), ResourceError);
    CHECK(fs::is_symlink(link));
    CHECK(fs::is_fifo(pipe));
}

TEST_CASE("a link stays, and what it points to is written") {
    const test::Scratch scratch;
    const auto link = scratch.path() / "link";
    fs::create_directories(scratch.path() / "far");
    fs::create_symlink("far/link", link);
    fs::create_symlink("../far/file", scratch.path() / "far/link");
    write_text_file(link, "first");  // of nothing yet
    CHECK(read_text_file(scratch.path() / "far/file") == "first");
    write_text_file(link, "second");
    CHECK(fs::is_symlink(link));
    CHECK(fs::is_symlink(scratch.path() / "far/link"));
    CHECK(read_text_file(scratch.path() / "far/file") == "second");

    fs::create_symlink(scratch.path() / "far/file", scratch.path() / "absolute");
    write_text_file(scratch.path() / "absolute", "third");
    CHECK(read_text_file(scratch.path() / "far/file") == "third");
}

TEST_CASE("links that lead in a circle are refused by name") {
    const test::Scratch scratch;
    const auto circle = scratch.path() / "circle";
    fs::create_symlink("circle", circle);
    CHECK_THROWS_AS(write_text_file(circle, "x"), ResourceError);
    CHECK_THROWS_WITH(write_text_file(circle, "x"), Catch::Contains(circle.string()));
    CHECK(fs::is_symlink(circle));
}

TEST_CASE("with a directory for temporaries a link is replaced") {
    const test::Scratch scratch;
    const auto path = scratch.path() / "a", other = scratch.path() / "other";
    write_text_file(other, "old");
    fs::create_symlink("other", path);
    AtomicFile f(path, true, scratch.path());
    f.write("new");
    f.commit();
    CHECK(read_text_file(path) == "new");
    CHECK(read_text_file(other) == "old");
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
