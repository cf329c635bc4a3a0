#pragma once
#include <filesystem>

#include "eyas/core/directory_lock.hpp"

namespace eyas {

/// Keeps a second trainer out of a run directory: two would remove each other's checkpoints.
class RunLock {
public:
    /// Creates the directory where it is missing. Throws ResourceError when another RunLock, of
    /// this process or another, holds it.
    explicit RunLock(const std::filesystem::path& run_dir)
        : lock_(run_dir, "another trainer is writing checkpoints here",
                "Let it end or stop it, or name another run directory") {}

private:
    detail::DirectoryLock lock_;
};

}  // namespace eyas
