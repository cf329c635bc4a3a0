#pragma once
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eyas/core/file.hpp"

namespace eyas {

namespace detail {
inline constexpr std::string_view checkpoint_prefix = "checkpoint-";
inline constexpr std::string_view discard_prefix = ".eyas-discard-";

/// The step in "checkpoint-{step}"; nothing for any other name.
inline std::optional<std::int64_t> checkpoint_step(const std::string& name) {
    if (!name.starts_with(checkpoint_prefix)) return std::nullopt;
    const auto digits = name.substr(checkpoint_prefix.size());
    if (digits.empty() || digits.size() > 18 ||
        !std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '9'; }))
        return std::nullopt;
    return std::stoll(digits);
}

inline void rename_path(const std::filesystem::path& from, const std::filesystem::path& to) {
    if (::rename(from.c_str(), to.c_str()) != 0) throw_errno("cannot rename to", to);
}

/// Takes a directory out of sight with one rename before its files go, so that a kill in between
/// leaves no half checkpoint under its name.
inline void discard_directory(const std::filesystem::path& dir) {
    const auto gone =
        dir.parent_path() / (std::string(discard_prefix) + "gone-" + dir.filename().string());
    std::error_code e;
    std::filesystem::remove_all(gone, e);
    rename_path(dir, gone);
    std::filesystem::remove_all(gone, e);  // what stays is swept before the next save
}

/// Whether nobody holds the lock of a directory (any more).
inline bool abandoned(const std::filesystem::path& dir) {
    const Fd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0;
}
}  // namespace detail

/// A directory that appears under its name complete or not at all. Files are written under path();
/// commit() puts it in place, over an older one of that name, with one step where the file system
/// can exchange two names; elsewhere a kill may leave the older one under another name, where the
/// next writer finds it. Destruction without commit removes it. Files inside must be synced by
/// whoever writes them (AtomicFile does). Used by one thread; writers of other names in the same
/// parent do not disturb each other, one process at a time may write one name.
class AtomicDirectory {
public:
    /// Creates `parent` where it is missing, and sweeps what killed writers left in it.
    AtomicDirectory(std::filesystem::path parent, const std::string& name)
        : parent_(std::move(parent)), final_(parent_ / name) {
        eyas::create_directories(parent_);
        sweep(name);
        for (int n = 0; !lock_; ++n) {
            path_ =
                hidden("new-" + name + "-" + std::to_string(::getpid()) + "-" + std::to_string(n));
            if (::mkdir(path_.c_str(), 0755) != 0) {
                if (errno != EEXIST || n > 1000)
                    detail::throw_errno("cannot create directory", path_);
                continue;
            }
            detail::Fd fd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
            // Another writer's sweep may have come first; then this name is gone again.
            // A file system without such locks (NFS) leaves only the sweep undone.
            if (!fd) detail::throw_errno("cannot open directory", path_);
            const bool held = ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
            if (held && std::filesystem::exists(path_)) lock_ = std::move(fd);
            if (!lock_ && n > 1000)
                throw ResourceError("cannot keep a directory of its own", path_.string(),
                                    "Check what else writes there");
        }
    }
    AtomicDirectory(const AtomicDirectory&) = delete;
    AtomicDirectory& operator=(const AtomicDirectory&) = delete;
    ~AtomicDirectory() {
        std::error_code e;
        if (!committed_) std::filesystem::remove_all(path_, e);
    }

    const std::filesystem::path& path() const { return path_; }

    std::filesystem::path commit() {
        detail::sync_directory(path_);
        const auto old = hidden("old-" + final_.filename().string());
        const bool over = std::filesystem::exists(final_);
        if (over &&
            ::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, final_.c_str(), RENAME_EXCHANGE) == 0) {
            committed_ = true;
            detail::sync_directory(parent_);
            detail::discard_directory(path_);
            return final_;
        }
        if (over) detail::rename_path(final_, old);
        try {
            detail::rename_path(path_, final_);
        } catch (...) {
            if (over) ::rename(old.c_str(), final_.c_str());
            throw;
        }
        committed_ = true;
        detail::sync_directory(parent_);
        if (over) detail::discard_directory(old);
        return final_;
    }

private:
    std::filesystem::path hidden(const std::string& name) const {
        return parent_ / (std::string(detail::discard_prefix) + name);
    }

    void sweep(const std::string& name) const {
        std::error_code e;
        const auto old = hidden("old-" + name);
        if (std::filesystem::exists(old, e)) {
            if (std::filesystem::exists(final_, e))
                std::filesystem::remove_all(old, e);
            else
                detail::rename_path(old, final_);
        }
        const auto unfinished = std::string(detail::discard_prefix) + "new-";
        const auto gone = std::string(detail::discard_prefix) + "gone-";
        std::vector<std::filesystem::path> left;
        for (const auto& entry : std::filesystem::directory_iterator(parent_, e)) {
            const auto found = entry.path().filename().string();
            if (found.starts_with(gone) ||
                (found.starts_with(unfinished) && detail::abandoned(entry.path())))
                left.push_back(entry.path());
        }
        for (const auto& p : left) std::filesystem::remove_all(p, e);
    }

    std::filesystem::path parent_, final_, path_;
    detail::Fd lock_;  // of path_: says that its writer lives
    bool committed_ = false;
};

/// Every checkpoint-{step} directory in `run_dir`, newest first; empty where there is none.
inline std::vector<std::filesystem::path> checkpoint_directories(
    const std::filesystem::path& run_dir) {
    std::vector<std::pair<std::int64_t, std::filesystem::path>> found;
    std::error_code e;
    for (const auto& entry : std::filesystem::directory_iterator(run_dir, e))
        if (auto step = detail::checkpoint_step(entry.path().filename().string()))
            found.emplace_back(*step, entry.path());
    std::ranges::sort(found, std::greater<>{});
    std::vector<std::filesystem::path> paths;
    paths.reserve(found.size());
    for (auto& f : found) paths.push_back(std::move(f.second));
    return paths;
}

/// Removes all but the newest `keep` checkpoints (0: keeps all). `keep_always` stays in any case.
inline void rotate_checkpoints(const std::filesystem::path& run_dir, std::int64_t keep,
                               const std::filesystem::path& keep_always) {
    if (keep <= 0) return;
    const auto all = checkpoint_directories(run_dir);
    for (auto i = static_cast<std::size_t>(keep); i < all.size(); ++i)
        if (all[i] != keep_always) detail::discard_directory(all[i]);
}

}  // namespace eyas
