#include <catch2/catch.hpp>
#include <vector>

#include "eyas/core/file.hpp"
#include "eyas/core/open_files.hpp"
#include "scratch.hpp"

using namespace eyas;

namespace {
/// This process may have no more files open than `files`, unless it asks, while this lives.
class FewFiles {
public:
    explicit FewFiles(rlim_t files) {
        ::getrlimit(RLIMIT_NOFILE, &before_);
        const rlimit now{files, before_.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &now);
    }
    FewFiles(const FewFiles&) = delete;
    FewFiles& operator=(const FewFiles&) = delete;
    ~FewFiles() { ::setrlimit(RLIMIT_NOFILE, &before_); }

private:
    rlimit before_{};
};
}  // namespace

TEST_CASE("a process that has too many files open is told how to have more, and can") {
    const test::Scratch scratch;
    const auto path = scratch.path() / "a";
    write_text_file(path, "text");
    const FewFiles limit(64);
    const auto open_many = [&] {
        std::vector<MappedFile> open;
        for (int i = 0; i < 64; ++i) open.emplace_back(path);
    };
    std::string message;
    try {
        open_many();
    } catch (const ResourceError& e) {
        message = e.what();
    }
    CHECK(message.find("raise ulimit -n") != std::string::npos);

    raise_open_files();
    rlimit now{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &now) == 0);
    CHECK(now.rlim_cur == now.rlim_max);
    CHECK_NOTHROW(open_many());
}
