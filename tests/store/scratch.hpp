#pragma once
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace eyas::test {

/// A fresh directory, removed at the end.
class Scratch {
public:
    Scratch() {
        static int counter = 0;
        const char* base = std::getenv("TEST_TMPDIR");
        path_ = (base ? std::filesystem::path(base) : std::filesystem::temp_directory_path()) /
                ("eyas-" + std::to_string(::getpid()) + "-" + std::to_string(counter++));
        std::filesystem::create_directories(path_);
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() {
        std::error_code e;
        std::filesystem::remove_all(path_, e);
    }
    const std::filesystem::path& path() const { return path_; }
    /// A new directory in it.
    std::filesystem::path fresh() {
        const auto p = path_ / std::to_string(count_++);
        std::filesystem::create_directories(p);
        return p;
    }

private:
    std::filesystem::path path_;
    int count_ = 0;
};

}  // namespace eyas::test
