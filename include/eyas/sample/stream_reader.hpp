#pragma once
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "eyas/core/file.hpp"
#include "eyas/sample/manifest_stream.hpp"

namespace eyas {

/// The consumer's end of a manifest stream: takes refs as they come. One thread at a time.
/// The file is opened anew for each look, so that a network file system shows what another machine
/// wrote, and so that another file under the same name is noticed.
class ManifestStreamReader {
public:
    explicit ManifestStreamReader(std::filesystem::path path)
        : path_(std::move(path)), parser_(path_.string()) {}

    /// Appends the refs that have come since the last call to `into`; returns how many. A file or
    /// a line that is not there yet is nothing. Throws DataError for a bad line, which it names,
    /// and for another stream under the same name; refs before the bad line have been appended.
    std::size_t poll(std::vector<SampleRef>& into) {
        const auto before = parser_.refs();
        while (!parser_.ended() && look(into)) {
        }
        return parser_.refs() - before;
    }

    /// Polls until a ref or a marker came. `keep_waiting` is asked before each pause and may return
    /// false to give up quietly; the result says whether something came. Throws TransportError,
    /// naming the producer, when `timeout` passes first (0: it never does), and what poll throws.
    bool wait(std::vector<SampleRef>& into, std::chrono::milliseconds timeout,
              const std::function<bool()>& keep_waiting) {
        return wait_until([&] { return poll(into) > 0 || ended(); }, "no new sample came", timeout,
                          keep_waiting);
    }

    /// The same for the header: header() holds one when it returns true.
    bool wait_for_header(std::vector<SampleRef>& into, std::chrono::milliseconds timeout,
                         const std::function<bool()>& keep_waiting) {
        return wait_until([&] { return poll(into), header().has_value(); }, "no stream began",
                          timeout, keep_waiting);
    }

    const std::optional<StreamHeader>& header() const { return parser_.header(); }
    bool finished() const { return parser_.finished(); }
    const std::optional<std::string>& failure() const { return parser_.failure(); }
    bool ended() const { return parser_.ended(); }
    const std::filesystem::path& path() const { return path_; }
    /// "the producer (eyas ingest on host)"
    std::string producer() const {
        const bool known = header() && !header()->producer.empty();
        return "the producer" + (known ? " (" + header()->producer + ")" : std::string());
    }

private:
    static constexpr std::chrono::milliseconds interval{20};  // between two looks

    template <class F>
    bool wait_until(const F& there, const char* what, std::chrono::milliseconds timeout,
                    const std::function<bool()>& keep_waiting) {
        const auto start = std::chrono::steady_clock::now();
        while (!there()) {
            if (!keep_waiting()) return false;
            if (timeout.count() > 0 && std::chrono::steady_clock::now() - start >= timeout)
                throw TransportError(
                    std::string(what) + " within " + std::to_string(timeout.count() / 1000) + " s",
                    path_.string(), "Check that " + producer() + " runs and writes this file");
            std::this_thread::sleep_for(interval);
        }
        return true;
    }

    // One read; false where it brought no whole line.
    bool look(std::vector<SampleRef>& into) {
        const detail::Fd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
        if (!fd && errno == ENOENT && head_.empty()) return false;
        if (!fd) detail::throw_errno("cannot open", path_);
        if (detail::read_at(fd, 0, head_.size(), path_) != head_)
            throw DataError("another stream lies here now", path_.string(),
                            "Start again with it, in a new run directory");
        struct stat st {};
        if (::fstat(fd.get(), &st) != 0) detail::throw_errno("cannot stat", path_);
        const auto size = static_cast<std::size_t>(st.st_size);
        if (size < end_)
            throw DataError("lines that were read are gone", path_.string(),
                            "Start again with it, in a new run directory");
        const auto bytes =
            detail::read_at(fd, end_, std::min(size - end_, StreamLimits::line_bytes + 1), path_);
        const std::string_view text(bytes);
        std::size_t at = 0;
        for (std::size_t newline; (newline = text.find('\n', at)) != text.npos;) {
            const auto line = text.substr(at, newline - at);
            auto ref = parser_.take(line);
            if (ref) into.push_back(std::move(*ref));
            if (head_.empty()) head_ = text.substr(0, newline + 1);
            end_ += newline + 1 - at;
            at = newline + 1;
        }
        if (at == 0 && text.size() > StreamLimits::line_bytes)
            parser_.take(text);  // throws: no line is so long
        return at > 0;
    }

    std::filesystem::path path_;
    ManifestStreamParser parser_;
    std::string head_;     // the first line, with its newline
    std::size_t end_ = 0;  // bytes of the lines that were taken
};

}  // namespace eyas
