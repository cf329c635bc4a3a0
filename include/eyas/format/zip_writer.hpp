#pragma once
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "eyas/core/checksum.hpp"
#include "eyas/core/file.hpp"

namespace eyas {

/// Writes a zip of stored entries whose data begin at multiples of 64 bytes, padded as torch pads
/// (extra field "FB"). ZIP64 fields where sizes or offsets need them. One writer, one thread.
class ZipWriter {
public:
    explicit ZipWriter(AtomicFile& file) : file_(file) {}

    void add(const std::string& name, std::span<const std::byte> data) {
        Entry e{name, crc32(data), data.size(), offset_};
        std::string extra;
        if (e.size >= limit) append_zip64(extra, {e.size, e.size});
        const auto unpadded = offset_ + 30 + name.size() + extra.size() + 4;
        const auto padding =
            static_cast<std::uint16_t>((alignment - unpadded % alignment) % alignment);
        extra += "FB";
        append(extra, padding);
        extra.append(padding, 'Z');
        std::string header;
        append(header, std::uint32_t{0x04034b50});
        append_common(header, e, static_cast<std::uint16_t>(extra.size()));
        write(header + name + extra);
        file_.write(data);
        offset_ += data.size();
        entries_.push_back(std::move(e));
    }
    void add(const std::string& name, std::string_view text) {
        add(name, std::as_bytes(std::span(text.data(), text.size())));
    }

    /// Writes the directory; the archive is complete then.
    void finish() {
        const auto begin = offset_;
        for (const auto& e : entries_) write_directory_record(e);
        const auto size = offset_ - begin, count = static_cast<std::uint64_t>(entries_.size());
        std::string end;
        if (begin >= limit || size >= limit || count >= 0xFFFF) {
            append(end, std::uint32_t{0x06064b50}), append(end, std::uint64_t{44}),
                append(end, std::uint16_t{45}), append(end, std::uint16_t{45});
            append(end, std::uint32_t{0}), append(end, std::uint32_t{0}), append(end, count),
                append(end, count), append(end, size), append(end, begin);
            append(end, std::uint32_t{0x07064b50}), append(end, std::uint32_t{0}),
                append(end, offset_), append(end, std::uint32_t{1});
        }
        const auto short_count = static_cast<std::uint16_t>(std::min<std::uint64_t>(count, 0xFFFF));
        append(end, std::uint32_t{0x06054b50}), append(end, std::uint32_t{0}),
            append(end, short_count), append(end, short_count);
        append(end, clipped(size)), append(end, clipped(begin)), append(end, std::uint16_t{0});
        write(end);
    }

private:
    static constexpr std::uint64_t alignment = 64, limit = 0xFFFFFFFFu;
    struct Entry {
        std::string name;
        std::uint32_t crc;
        std::uint64_t size, offset;
    };

    template <class T>
    static void append(std::string& to, T value) {
        to.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    static std::uint32_t clipped(std::uint64_t v) {
        return static_cast<std::uint32_t>(std::min(v, limit));
    }
    static void append_zip64(std::string& to, const std::vector<std::uint64_t>& values) {
        append(to, std::uint16_t{1}), append(to, static_cast<std::uint16_t>(8 * values.size()));
        for (auto v : values) append(to, v);
    }

    /// The fields that local header and directory share: version to extra length.
    static void append_common(std::string& to, const Entry& e, std::uint16_t extra) {
        append(to, std::uint16_t{45}), append(to, std::uint16_t{0x0800}),
            append(to, std::uint16_t{0});                                 // version, UTF-8, stored
        append(to, std::uint16_t{0}), append(to, std::uint16_t{0x0021});  // time, 1 January 1980
        append(to, e.crc), append(to, clipped(e.size)), append(to, clipped(e.size));
        append(to, static_cast<std::uint16_t>(e.name.size())), append(to, extra);
    }

    void write_directory_record(const Entry& e) {
        std::vector<std::uint64_t> big;
        if (e.size >= limit) big = {e.size, e.size};
        if (e.offset >= limit) big.push_back(e.offset);
        std::string extra, record;
        if (!big.empty()) append_zip64(extra, big);
        append(record, std::uint32_t{0x02014b50}), append(record, std::uint16_t{45});
        append_common(record, e, static_cast<std::uint16_t>(extra.size()));
        append(record, std::uint16_t{0}), append(record, std::uint16_t{0}),
            append(record, std::uint16_t{0});  // comment, disk, attributes
        append(record, std::uint32_t{0}), append(record, clipped(e.offset));
        write(record + e.name + extra);
    }

    void write(const std::string& bytes) {
        file_.write(bytes);
        offset_ += bytes.size();
    }

    AtomicFile& file_;
    std::vector<Entry> entries_;
    std::uint64_t offset_ = 0;
};

}  // namespace eyas
