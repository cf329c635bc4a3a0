#pragma once
#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <filesystem>

#include "eyas/core/file.hpp"

namespace eyas {

/// Keeps a second trainer out of a run directory: two would remove each other's checkpoints. An
/// advisory lock on the directory itself; it leaves no file and ends with the process, however that
/// ends. Where the file system has no such locks (some network ones) it keeps nobody out.
class RunLock {
public:
    /// Creates the directory where it is missing. Throws ResourceError when another RunLock, of
    /// this process or another, holds it.
    explicit RunLock(const std::filesystem::path& run_dir) {
        eyas::create_directories(run_dir);
        fd_ = detail::Fd(::open(run_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (fd_.get() < 0) detail::throw_errno("cannot open run directory", run_dir);
        if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
            throw ResourceError("another trainer is writing checkpoints here", run_dir.string(),
                                "Let it end or stop it, or name another run directory");
    }

private:
    detail::Fd fd_;
};

}  // namespace eyas
