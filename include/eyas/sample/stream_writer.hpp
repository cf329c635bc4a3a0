#pragma once
#include <algorithm>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "eyas/core/file.hpp"
#include "eyas/core/line_file.hpp"
#include "eyas/core/random_id.hpp"
#include "eyas/sample/manifest_stream.hpp"

namespace eyas {

/// The producer's end of a manifest stream. One thread; a lock keeps a second producer out for as
/// long as this one lives. Where a call throws ResourceError the stream ends with its last whole
/// line, and no further ref is taken; a writer that is made anew goes on from there.
class ManifestStreamWriter {
public:
    struct Options {
        // fsync after each line: what append() returned for stays. A reader may see a line shortly
        // before that, and then find it gone after a crash or a failed fsync.
        bool durable = true;
        std::string producer = {};  // recorded in a new stream's header, for messages
    };

    /// Begins a stream, or goes on with the one that is there: a line without newline, which a
    /// killed writer left, is cut off, and so is a failure marker. `present` is called for each ref
    /// that is there already.
    /// Throws DataError when the file is no stream (it is not changed then) or a whole line of it
    /// is bad, ResourceError when another writer holds it or the disk refuses.
    explicit ManifestStreamWriter(std::filesystem::path path, Options options,
                                  const std::function<void(const SampleRef&)>& present = {})
        : path_(std::move(path)),
          options_(std::move(options)),
          parser_(path_.string()),
          file_(path_, options_.durable, "another producer is writing this stream",
                "Let it end, or name another file") {
        adopt(present);
        if (!parser_.header()) begin();
    }
    explicit ManifestStreamWriter(std::filesystem::path path)
        : ManifestStreamWriter(std::move(path), Options{}) {}

    /// Adds a ref; it is on disk on return. Throws ContractError for a ref that a reader would
    /// refuse (a payload in its metadata, an id that is there, text that is not UTF-8) and for a
    /// stream that has ended; ResourceError when the disk refuses.
    void append(const SampleRef& ref) {
        std::string line;
        try {
            line = detail::stream_line(ref_to_json(ref));
        } catch (const std::exception& e) {
            throw ContractError(e.what(), where(ref), "The ref was not written");
        }
        add(std::move(line), where(ref));
    }

    /// No ref will follow. Errors are append()'s.
    void finish() { add(detail::stream_line({{"end", true}, {"refs", refs()}}), path_.string()); }

    /// The producer gives up; whoever waits is told why. Errors are append()'s.
    void fail(std::string reason) {
        reason.resize(std::min(reason.size(), StreamLimits::text_bytes / 4));
        const OrderedJson j{{"failed", reason}, {"refs", refs()}};
        add(j.dump(-1, ' ', true, OrderedJson::error_handler_t::replace) + "\n", path_.string());
    }

    const StreamHeader& header() const { return *parser_.header(); }
    std::size_t refs() const { return parser_.refs(); }
    bool contains(const std::string& sample_id) const { return parser_.contains(sample_id); }
    bool finished() const { return parser_.finished(); }
    const std::filesystem::path& path() const { return path_; }

private:
    std::string where(const SampleRef& ref) const {
        return path_.string() + ": sample '" + ref.sample_id + "'";
    }

    // Checks what is there and cuts it behind its last good line.
    void adopt(const std::function<void(const SampleRef&)>& present) {
        const auto size = detail::size_of_regular(file_.descriptor(), path_);
        std::size_t end = 0;  // of whole lines
        while (adopt_lines(size, end, present)) {
        }
        if (size - end > StreamLimits::line_bytes + 1)
            throw DataError("a line without end of " + std::to_string(size - end) +
                                " bytes: not a manifest stream",
                            path_.string(), "Name another file");
        if (!parser_.header()) check_is_torn_header();
        file_.cut_to(end);
    }

    // What has no newline yet is cut only where this class may have written it.
    void check_is_torn_header() const {
        const auto torn =
            detail::read_at(file_.descriptor(), 0, detail::header_beginning.size(), path_);
        if (!detail::header_beginning.starts_with(torn))
            throw DataError("not a manifest stream", path_.string(), "Name another file");
    }

    // One read behind `end`; false where it brought no whole line, or the failure marker last.
    bool adopt_lines(std::size_t size, std::size_t& end,
                     const std::function<void(const SampleRef&)>& present) {
        const auto bytes = detail::read_at(
            file_.descriptor(), end, std::min(size - end, StreamLimits::line_bytes + 1), path_);
        const std::string_view text(bytes);
        std::size_t at = 0;
        for (std::size_t newline; (newline = text.find('\n', at)) != text.npos; at = newline + 1) {
            const auto line = text.substr(at, newline - at);
            const auto behind = end + line.size() + 1;
            if (behind == size && detail::is_failure_marker(line)) return false;
            const auto ref = parser_.take(line);
            if (ref && present) present(*ref);
            end = behind;
        }
        return at > 0;
    }

    void begin() {
        add(detail::stream_line(detail::header_to_json(
                {detail::random_hex() + detail::random_hex(), options_.producer})),
            path_.string());
        if (options_.durable)
            detail::sync_directory(path_.has_parent_path() ? path_.parent_path() : ".");
    }

    // The parser sees the line first, so that what is written can be read.
    void add(std::string line, const std::string& where) {
        file_.check();
        try {
            line.pop_back();
            parser_.take(line);
        } catch (const DataError& e) {
            throw ContractError(e.what(), where, "The line was not written");
        }
        line.push_back('\n');
        file_.append(line);
    }

    std::filesystem::path path_;
    Options options_;
    ManifestStreamParser parser_;
    LineFile file_;
};

}  // namespace eyas
