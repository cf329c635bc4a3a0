#pragma once
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "eyas/core/file.hpp"

namespace eyas {

/// A file of lines that one process appends to and others may read meanwhile; a lock keeps a second
/// writer out for as long as this one lives. A line counts once its newline is there: what a killed
/// writer left behind the last one is for the next writer to cut off. One thread.
class LineFile {
public:
    /// Opens or creates the file, and its directory. `durable`: fsync after each change. Throws
    /// ResourceError("busy. remedy") where another writer holds it, or the disk refuses.
    LineFile(std::filesystem::path path, bool durable, const char* busy, const char* remedy)
        : path_(std::move(path)), durable_(durable) {
        if (path_.has_parent_path()) eyas::create_directories(path_.parent_path());
        do {
            fd_ = detail::Fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
            if (!fd_) detail::throw_errno("cannot open", path_);
            if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
                throw ResourceError(busy, path_.string(), remedy);
        } while (!still_there());
    }

    const detail::Fd& descriptor() const { return fd_; }
    const std::filesystem::path& path() const { return path_; }
    /// Bytes of whole lines, as far as is known: cut_to() says so of what was there before.
    std::size_t end() const { return end_; }

    /// The first `end` bytes are whole lines; what follows is cut off.
    void cut_to(std::size_t end) {
        end_ = end;
        if (detail::size_of_regular(fd_, path_) == end) return;
        if (::ftruncate(fd_.get(), offset(end_)) != 0 || (durable_ && ::fsync(fd_.get()) != 0))
            detail::throw_errno("cannot cut a torn line", path_);
    }

    /// Appends a line that ends with its newline. Where this throws ResourceError the file ends
    /// with its last whole line, and every further call throws it too.
    void append(std::string_view line) {
        check();
        for (std::size_t done = 0; done < line.size();) {
            const auto n =
                ::pwrite(fd_.get(), line.data() + done, line.size() - done, offset(end_ + done));
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) fail("cannot write");
            done += static_cast<std::size_t>(n);
        }
        if (durable_ && ::fsync(fd_.get()) != 0) fail("cannot sync");
        end_ += line.size();
    }

    /// Throws ResourceError where an earlier append() did.
    void check() const {
        if (broken_)
            throw ResourceError("an earlier line could not be written", path_.string(),
                                "Start its writer again");
    }

private:
    /// Whether the open file is the one under its name: a writer that ended between open and lock
    /// may have removed it, and a lock on a file without a name keeps nobody out.
    bool still_there() const {
        struct stat open_one {
        }, named{};
        return ::fstat(fd_.get(), &open_one) == 0 && ::stat(path_.c_str(), &named) == 0 &&
               open_one.st_dev == named.st_dev && open_one.st_ino == named.st_ino;
    }
    [[noreturn]] void fail(const char* what) {
        const int e = errno;
        broken_ = true;
        [[maybe_unused]] const auto unused = ::ftruncate(fd_.get(), offset(end_));
        errno = e;
        detail::throw_errno(what, path_);
    }
    static off_t offset(std::size_t at) { return static_cast<off_t>(at); }

    std::filesystem::path path_;
    bool durable_;
    detail::Fd fd_;
    std::size_t end_ = 0;
    bool broken_ = false;
};

}  // namespace eyas
