#pragma once
#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <filesystem>
#include <string>

#include "eyas/core/file.hpp"

namespace eyas::detail {

/// Keeps others out of a directory that one process writes. An advisory lock on the directory
/// itself; it leaves no file and ends with the process, however that ends. Where the file system
/// has no such locks (some network ones) it keeps nobody out.
class DirectoryLock {
public:
    /// Creates the directory where it is missing. Throws ResourceError("what. remedy") when another
    /// lock, of this process or another, is on it.
    DirectoryLock(const std::filesystem::path& dir, const std::string& what,
                  const std::string& remedy) {
        eyas::create_directories(dir);
        fd_ = Fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!fd_) throw_errno("cannot open directory", dir);
        if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
            throw ResourceError(what, dir.string(), remedy);
    }

private:
    Fd fd_;
};

}  // namespace eyas::detail
