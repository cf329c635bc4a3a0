#pragma once
#include <fcntl.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>

#include "eyas/core/json.hpp"

namespace eyas {

/// Appears when a capture is complete, so that who takes its files while they come knows the last:
/// {"files": N}. It is gone from the beginning of a capture to its end, also of one that is started
/// again over a longer list.
inline std::filesystem::path capture_done_file(const std::filesystem::path& out) {
    return out / "CAPTURE.done";
}

inline void write_capture_done(const std::filesystem::path& out, std::int64_t files) {
    write_text_file(capture_done_file(out), OrderedJson{{"files", files}}.dump() + "\n");
}

/// An end that a capture, or somebody else, declared in a file.
struct DeclaredEnd {
    std::size_t files = 0;  // how many there are at least; 0 where the file does not say

    friend bool operator==(const DeclaredEnd&, const DeclaredEnd&) = default;
};

/// What `file` declares; nothing while it is not there. Any text is an end (earlier captures wrote
/// "done"), only capture's own counts.
inline std::optional<DeclaredEnd> declared_end(const std::filesystem::path& file) {
    constexpr std::size_t longest = 4096;
    const detail::Fd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd && errno == ENOENT) return std::nullopt;
    if (!fd) detail::throw_errno("cannot open", file);
    const auto j = OrderedJson::parse(detail::read_at(fd, 0, longest, file), nullptr, false);
    DeclaredEnd end;
    if (j.is_object() && j.contains("files") && j.at("files").is_number_unsigned())
        end.files = j.at("files").get<std::size_t>();
    return end;
}

}  // namespace eyas
