#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "eyas/core/error.hpp"

namespace eyas {

namespace detail {
[[noreturn]] inline void throw_errno(const std::string& what, const std::filesystem::path& where) {
    const int e = errno;
    const std::string text = what + ": " + std::strerror(e);
    if (e == ENOENT) throw DataError(text, where.string(), "Check the path");
    const char* remedy = "Check permissions and the file system";
    if (e == ENOSPC || e == EDQUOT) remedy = "Free some space and run it again";
    if (e == EMFILE) remedy = "This process has too many files open: raise ulimit -n";
    if (e == ENFILE) remedy = "The system has too many files open: raise fs.file-max, ulimit -n";
    throw ResourceError(text, where.string(), remedy);
}

/// An owned file descriptor.
class Fd {
public:
    explicit Fd(int fd = -1) : fd_(fd) {}
    Fd(Fd&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
    Fd& operator=(Fd&& o) noexcept {
        std::swap(fd_, o.fd_);
        return *this;
    }
    ~Fd() {
        if (fd_ >= 0) ::close(fd_);
    }
    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }

private:
    int fd_;
};

/// Whether a file's bytes come from another machine (or a program), which may fail at any time.
inline bool lies_on_network(int fd) {
    struct statfs fs {};
    if (::fstatfs(fd, &fs) != 0) return true;
    // Magic numbers as in Linux' file systems: NFS, SMB (three), FUSE, Lustre, Ceph, AFS, GPFS,
    // BeeGFS, 9P.
    for (const std::uint32_t magic :
         {0x6969u, 0x517Bu, 0xFF534D42u, 0xFE534D42u, 0x65735546u, 0x0BD00BD0u, 0x00C36400u,
          0x5346414Fu, 0x47504653u, 0x19830326u, 0x01021997u})
        if (static_cast<std::uint32_t>(fs.f_type) == magic) return true;
    return false;
}

/// Throws DataError for what is no regular file.
inline std::size_t size_of_regular(const Fd& fd, const std::filesystem::path& path) {
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) throw_errno("cannot stat", path);
    if (!S_ISREG(st.st_mode)) throw DataError("not a regular file", path.string(), "Name a file");
    return static_cast<std::size_t>(st.st_size);
}

/// The `size` bytes at `offset`, or fewer where the file ends before.
inline std::string read_at(const Fd& fd, std::size_t offset, std::size_t size,
                           const std::filesystem::path& path) {
    std::string bytes(size, '\0');
    std::size_t got = 0;
    while (got < size) {
        const auto n =
            ::pread(fd.get(), bytes.data() + got, size - got, static_cast<off_t>(offset + got));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw_errno("cannot read", path);
        if (n == 0) break;
        got += static_cast<std::size_t>(n);
    }
    bytes.resize(got);
    return bytes;
}

inline void sync_directory(const std::filesystem::path& dir) {
    Fd d(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!d || ::fsync(d.get()) != 0) throw_errno("cannot sync directory", dir);
}
/// Renames where nothing has the new name; false where something has it.
inline bool rename_new(const std::filesystem::path& from, const std::filesystem::path& to) {
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0)
        return true;
    if (errno == EEXIST) return false;
    if (errno != EINVAL && errno != ENOSYS) throw_errno("cannot rename to", to);
    if (::link(from.c_str(), to.c_str()) == 0) {  // as on NFS, which does not know the flag
        ::unlink(from.c_str());
        return true;
    }
    if (errno == EEXIST || std::filesystem::exists(std::filesystem::symlink_status(to)))
        return false;
    if (::rename(from.c_str(), to.c_str()) != 0) throw_errno("cannot rename to", to);
    return true;  // a file system that knows neither: what comes in between is replaced
}

/// The name that a chain of symbolic links ends with, which may be of nothing yet; `path` itself
/// where it is no link.
inline std::filesystem::path behind_links(std::filesystem::path path) {
    const auto first = path;
    std::error_code e;
    for (int links = 0; std::filesystem::is_symlink(path, e); ++links) {
        if (links == 40)  // as many as Linux follows
            throw ResourceError("its links lead nowhere", first.string(), "Name a file");
        const auto target = std::filesystem::read_symlink(path, e);
        if (e)
            throw ResourceError("cannot read the link: " + e.message(), path.string(),
                                "Name a file");
        path = path.parent_path() / target;  // the target alone, where that is absolute
    }
    return path;
}

/// Throws where a rename to `path` would put a file in the place of a device, a pipe or the like.
inline void refuse_if_not_regular(const std::filesystem::path& path) {
    std::error_code e;
    const auto status = std::filesystem::symlink_status(path, e);
    if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
        throw ResourceError("there is something that is not a regular file", path.string(),
                            "Name a file");
}
}  // namespace detail

/// A whole file mapped read-only. Copies share the mapping; views into it live as long as any copy.
/// Thread-safe to read. A file that another process truncates while mapped raises SIGBUS. Files
/// that eyas renames complete into place are never truncated; a manifest stream, whose writer cuts
/// torn lines off, and an SQLite file are, so they are not mapped.
class MappedFile {
public:
    MappedFile() = default;
    explicit MappedFile(const std::filesystem::path& path) : path_(path) {
        detail::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!fd) detail::throw_errno("cannot open", path);
        const auto size = detail::size_of_regular(fd, path);
        if (size == 0) return;
        void* p = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
        if (p == MAP_FAILED) detail::throw_errno("cannot map", path);
        fd_ = fd.get();
        on_network_ = detail::lies_on_network(fd_);
        map_ = std::shared_ptr<const std::byte>(
            static_cast<const std::byte*>(p),
            [size, owner = std::make_shared<detail::Fd>(std::move(fd))](const std::byte* q) {
                ::munmap(const_cast<std::byte*>(q), size);
            });
        size_ = size;
    }

    std::span<const std::byte> bytes() const { return {map_.get(), size_}; }
    const std::filesystem::path& path() const { return path_; }
    /// Open as long as the mapping lives, so that it can be handed to another process; -1 for an
    /// empty file.
    int descriptor() const { return fd_; }
    bool on_network() const { return on_network_; }

private:
    std::filesystem::path path_;
    int fd_ = -1;
    bool on_network_ = false;
    std::shared_ptr<const std::byte> map_;
    std::size_t size_ = 0;
};

/// Writes a file that appears under its name complete or not at all: bytes go to a temporary beside
/// it, commit() syncs, renames and syncs the directory; destruction without commit removes it.
/// Not thread-safe; owned by one writer.
class AtomicFile {
public:
    /// `durable` false leaves out both syncs (tests, scratch data). `directory`: where the
    /// temporary is, on the same file system; where empty, it is beside `path`, and where `path` is
    /// a symbolic link, what that points to is written. Throws ResourceError where `path` is there
    /// and no regular file.
    explicit AtomicFile(std::filesystem::path path, bool durable = true,
                        const std::filesystem::path& directory = {})
        : path_(std::move(path)), durable_(durable) {
        static std::atomic<unsigned> counter{0};
        if (directory.empty()) {  // else links are others' work, and are replaced as files are
            path_ = detail::behind_links(path_);
            detail::refuse_if_not_regular(path_);
        }
        do {  // a name may be taken by what a killed process of the same number left
            temporary_ = (directory.empty() ? path_ : directory / path_.filename());
            temporary_ += ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
            fd_ = detail::Fd(
                ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
        } while (!fd_ && errno == EEXIST);
        if (!fd_) detail::throw_errno("cannot create", temporary_);
    }
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;
    ~AtomicFile() {
        if (!committed_) ::unlink(temporary_.c_str());
    }

    void write(std::span<const std::byte> bytes) {
        while (!bytes.empty()) {
            const auto n = ::write(fd_.get(), bytes.data(), bytes.size());
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) detail::throw_errno("cannot write", path_);
            bytes = bytes.subspan(static_cast<std::size_t>(n));
            written_ += static_cast<std::uint64_t>(n);
        }
    }
    void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

    /// At a place of its own, apart from what write() appends.
    void write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
        while (!bytes.empty()) {
            const auto n =
                ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) detail::throw_errno("cannot write", path_);
            offset += static_cast<std::uint64_t>(n);
            bytes = bytes.subspan(static_cast<std::size_t>(n));
        }
    }

    /// commit() under another name on the same file system, chosen only now, that nothing has yet:
    /// false where something has it, and nothing has changed then.
    bool commit_new(const std::filesystem::path& path) {
        sync();
        if (!detail::rename_new(temporary_, path)) return false;
        path_ = path;
        appeared();
        return true;
    }

    /// Makes the bytes durable early, so that commit() has little left to do.
    void sync() {
        if (durable_ && ::fsync(fd_.get()) != 0) detail::throw_errno("cannot sync", path_);
    }

    void commit() {
        sync();
        if (::rename(temporary_.c_str(), path_.c_str()) != 0)
            detail::throw_errno("cannot rename to", path_);
        appeared();
    }

    /// The name that the bytes have until commit().
    const std::filesystem::path& temporary() const { return temporary_; }
    const std::filesystem::path& path() const { return path_; }
    int descriptor() const { return fd_.get(); }
    std::uint64_t bytes() const { return written_; }  // so far

private:
    void appeared() {
        committed_ = true;
        if (durable_) detail::sync_directory(path_.has_parent_path() ? path_.parent_path() : ".");
    }

    std::filesystem::path path_, temporary_;
    std::uint64_t written_ = 0;
    detail::Fd fd_;
    bool durable_;
    bool committed_ = false;
};

/// A small text file, atomically.
inline void write_text_file(const std::filesystem::path& path, std::string_view text) {
    AtomicFile f(path);
    f.write(text);
    f.commit();
}

/// What the file holds now. It may grow and shrink meanwhile: then the text may end early.
inline std::string read_text_file(const std::filesystem::path& path) {
    const detail::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) detail::throw_errno("cannot open", path);
    return detail::read_at(fd, 0, detail::size_of_regular(fd, path), path);
}

inline void create_directories(const std::filesystem::path& path) {
    std::error_code e;
    std::filesystem::create_directories(path, e);
    if (e)
        throw ResourceError("cannot create directory: " + e.message(), path.string(),
                            "Check permissions and that no file has that name");
}

}  // namespace eyas
