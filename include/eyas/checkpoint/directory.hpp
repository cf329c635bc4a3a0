#pragma once
#include <unistd.h>

#include <algorithm>
#include <cstdint>
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
    const auto parked = dir.parent_path() / (std::string(discard_prefix) + dir.filename().string());
    std::error_code e;
    std::filesystem::remove_all(parked, e);
    rename_path(dir, parked);
    std::filesystem::remove_all(parked, e);  // what stays is swept before the next save
}
}  // namespace detail

/// A directory that appears under its name complete or not at all. Files are written under path();
/// commit() renames it into place, over an older one of that name. Destruction without commit
/// removes it. Files inside must be synced by whoever writes them (AtomicFile does).
/// Used by one thread; one process at a time may write into `parent`.
class AtomicDirectory {
public:
    /// Creates `parent` where it is missing, and sweeps what a killed writer left in it.
    AtomicDirectory(std::filesystem::path parent, const std::string& name)
        : parent_(std::move(parent)), final_(parent_ / name) {
        eyas::create_directories(parent_);
        sweep(parent_);
        path_ = parent_ / (std::string(detail::discard_prefix) + "new-" + name);
        if (::mkdir(path_.c_str(), 0755) != 0)
            detail::throw_errno("cannot create directory", path_);
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
        if (std::filesystem::exists(final_)) detail::discard_directory(final_);
        detail::rename_path(path_, final_);
        committed_ = true;
        detail::sync_directory(parent_);
        return final_;
    }

private:
    static void sweep(const std::filesystem::path& parent) {
        std::error_code e;
        std::vector<std::filesystem::path> left;
        for (const auto& entry : std::filesystem::directory_iterator(parent, e))
            if (entry.path().filename().string().starts_with(detail::discard_prefix))
                left.push_back(entry.path());
        for (const auto& p : left) std::filesystem::remove_all(p, e);
    }

    std::filesystem::path parent_, final_, path_;
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
