#pragma once
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace eyas::test {

/// A directory name of this test's own under $TEST_TMPDIR; gone before and after.
class RunDirectory {
public:
    explicit RunDirectory(const std::string& name) {
        const char* base = std::getenv("TEST_TMPDIR");
        path_ = (base ? std::filesystem::path(base) : std::filesystem::temp_directory_path()) /
                ("eyas-run-" + std::to_string(::getpid()) + "-" + name);
        std::filesystem::remove_all(path_);
    }
    RunDirectory(const RunDirectory&) = delete;
    RunDirectory& operator=(const RunDirectory&) = delete;
    ~RunDirectory() {
        std::error_code e;
        std::filesystem::remove_all(path_, e);
    }
    const std::filesystem::path& path() const { return path_; }

private:
    std::filesystem::path path_;
};

}  // namespace eyas::test
