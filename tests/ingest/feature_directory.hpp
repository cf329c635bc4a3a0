#pragma once
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "eyas/core/file.hpp"
#include "eyas/format/torch_file.hpp"
#include "tests/loader/fake_store.hpp"

namespace eyas::test {

/// A temporary directory of feature files, removed at the end.
class FeatureDirectory {
public:
    explicit FeatureDirectory(const std::string& name) {
        const char* tmp = std::getenv("TEST_TMPDIR");
        path_ = (tmp ? std::filesystem::path(tmp) : std::filesystem::temp_directory_path()) /
                ("eyas_" + name + "_" + std::to_string(::getpid()));
        std::filesystem::remove_all(path_);
        eyas::create_directories(path_);
    }
    FeatureDirectory(const FeatureDirectory&) = delete;
    FeatureDirectory& operator=(const FeatureDirectory&) = delete;
    ~FeatureDirectory() { std::filesystem::remove_all(path_); }

    const std::filesystem::path& path() const { return path_; }

    /// A sample of 6 rows and width 4, after `change` did what it wants to its tensors.
    void add(const std::string& file, std::int64_t seed,
             const std::function<void(FakeSample&)>& change = {}) const {
        FakeSample s(6, 4, seed);
        if (change) change(s);
        eyas::create_directories((path_ / file).parent_path());
        write_torch_file(path_ / file, std::span<const NamedTensor>(s.tensors));
    }

private:
    std::filesystem::path path_;
};

}  // namespace eyas::test
