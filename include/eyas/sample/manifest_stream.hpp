#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "eyas/sample/sample_ref.hpp"

namespace eyas {

// A manifest that grows while its samples are captured: JSON lines, appended one by one.
//   {"stream_id": "91c3…", "schema_version": 1, "producer": "eyas ingest on host"}   first
//   {"sample_id": …}                                            one SampleRef a line, as in a
//   manifest
//   {"end": true, "refs": 520}  or  {"failed": "why", "refs": 31}                     last
// A line counts once its newline is there, so a reader never sees half of one.

struct StreamLimits {
    static constexpr std::size_t line_bytes = std::size_t{1} << 20;  // its newline not counted
    static constexpr std::size_t text_bytes = 4096;                  // stream id, producer, reason
};

/// The first line: which stream it is. A producer that goes on with a stream keeps its id; another
/// stream under the same name has another one.
struct StreamHeader {
    std::string stream_id;
    std::string producer = {};  // who writes it, for messages
    std::int64_t schema_version = SampleRef::supported_schema_version;

    friend bool operator==(const StreamHeader&, const StreamHeader&) = default;
};
static_assert(MetadataOnly<StreamHeader>);

namespace detail {
inline std::string stream_line(const OrderedJson& j) { return j.dump(-1, ' ', true) + "\n"; }

inline OrderedJson header_to_json(const StreamHeader& h) {
    return {
        {"stream_id", h.stream_id}, {"schema_version", h.schema_version}, {"producer", h.producer}};
}

/// How every header that header_to_json() gives begins; a torn one is a prefix of it, or longer.
inline constexpr std::string_view header_beginning = "{\"stream_id\":";

inline std::string bounded_text(const OrderedJson& j, const char* key, const std::string& where) {
    auto text = required<std::string>(j, key, where);
    if (text.size() > StreamLimits::text_bytes)
        throw DataError(std::string(key) + " has " + std::to_string(text.size()) + " bytes", where,
                        "Write the stream again");
    return text;
}
}  // namespace detail

/// Checks a stream line by line. A line that it threw for is not taken. One thread at a time.
class ManifestStreamParser {
public:
    /// `where` names the stream in messages.
    explicit ManifestStreamParser(std::string where) : where_(std::move(where)) {}

    /// One whole line, without its newline. The ref that it holds; nothing for header and markers.
    /// Throws DataError, naming the line, for what is not a line of a stream at this place.
    std::optional<SampleRef> take(std::string_view line) {
        const auto at = where_ + ": line " + std::to_string(lines_ + 1);
        if (line.size() > StreamLimits::line_bytes)
            throw DataError("longer than " + std::to_string(StreamLimits::line_bytes) + " bytes",
                            at, "Name the stream that ingest wrote");
        if (ended()) throw DataError("something follows the stream's end", at, remedy);
        const auto j = parse_json<OrderedJson>(line, at);
        if (!j.is_object()) throw DataError("not a JSON object", at, remedy);
        std::optional<SampleRef> ref;
        if (lines_ == 0)
            take_header(j, at);
        else if (j.contains("end") || j.contains("failed"))
            take_marker(j, at);
        else
            ref = take_ref(j, at);
        ++lines_;
        return ref;
    }

    /// Nothing before the first line.
    const std::optional<StreamHeader>& header() const { return header_; }
    std::size_t refs() const { return ids_.size(); }
    bool contains(const std::string& sample_id) const { return ids_.contains(sample_id); }
    bool finished() const { return finished_; }
    /// Why the producer gave up.
    const std::optional<std::string>& failure() const { return failure_; }
    bool ended() const { return finished_ || failure_; }
    const std::string& where() const { return where_; }

private:
    static constexpr const char* remedy = "Write the stream again";

    void take_header(const OrderedJson& j, const std::string& at) {
        static constexpr std::string_view keys[] = {"stream_id", "schema_version", "producer"};
        if (!j.contains("stream_id"))
            throw DataError("not the header of a manifest stream", at,
                            "Name the stream that ingest --stream wrote");
        detail::check_keys(j, keys, at);
        StreamHeader h;
        h.schema_version =
            detail::json_integer(required<OrderedJson>(j, "schema_version", at), at, 0);
        if (h.schema_version != SampleRef::supported_schema_version)
            throw DataError("schema version " + std::to_string(h.schema_version) +
                                ", this library reads version " +
                                std::to_string(SampleRef::supported_schema_version),
                            at, "Ingest the features again");
        h.stream_id = detail::bounded_text(j, "stream_id", at);
        if (h.stream_id.empty()) throw DataError("empty stream_id", at, remedy);
        if (j.contains("producer")) h.producer = detail::bounded_text(j, "producer", at);
        header_ = std::move(h);
    }

    void take_marker(const OrderedJson& j, const std::string& at) {
        static constexpr std::string_view end_keys[] = {"end", "refs"};
        static constexpr std::string_view failed_keys[] = {"failed", "refs"};
        const bool end = j.contains("end");
        detail::check_keys(j, end ? std::span<const std::string_view>(end_keys) : failed_keys, at);
        const auto refs = detail::json_integer(required<OrderedJson>(j, "refs", at), at, 0);
        if (static_cast<std::size_t>(refs) != ids_.size())
            throw DataError("the end marker counts " + std::to_string(refs) +
                                " refs, the stream holds " + std::to_string(ids_.size()),
                            at, remedy);
        if (end && !required<bool>(j, "end", at)) throw DataError("end is false", at, remedy);
        if (!end) failure_ = detail::bounded_text(j, "failed", at);
        finished_ = end;
    }

    SampleRef take_ref(const OrderedJson& j, const std::string& at) {
        auto ref = ref_from_json(j, at);
        if (!ids_.insert(ref.sample_id).second)
            throw DataError("sample_id '" + ref.sample_id + "' occurs twice", at,
                            "Give every sample its own id");
        return ref;
    }

    std::string where_;
    std::size_t lines_ = 0;  // taken so far
    std::optional<StreamHeader> header_;
    std::unordered_set<std::string> ids_;
    bool finished_ = false;
    std::optional<std::string> failure_;
};

namespace detail {
/// Whether text is that of a stream, by its first line.
inline bool is_manifest_stream(std::string_view text) {
    constexpr std::size_t longest = 16 * StreamLimits::text_bytes;
    const auto line = text.substr(0, text.substr(0, longest).find('\n'));
    if (line.size() == text.size() || !line.starts_with("{")) return false;
    const auto j = OrderedJson::parse(line, nullptr, false);
    return j.is_object() && j.contains("stream_id");
}

inline bool is_failure_marker(std::string_view line) {
    if (line.size() > StreamLimits::line_bytes) return false;
    const auto j = OrderedJson::parse(line, nullptr, false);
    return j.is_object() && j.contains("failed") && j.at("failed").is_string();
}
}  // namespace detail

}  // namespace eyas
