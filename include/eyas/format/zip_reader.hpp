#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "eyas/core/checksum.hpp"
#include "eyas/core/error.hpp"

namespace eyas {

/// The entries of a zip archive that lies in memory (PKWARE APPNOTE 6.3, with ZIP64). Only what
/// torch writes is accepted: stored entries, one disk, no encryption. Every offset and size is
/// checked against the archive before use. The bytes must outlive the reader and the spans it gives
/// out.
class ZipReader {
public:
    /// Throws DataError that names `where` for anything but such an archive.
    ZipReader(std::span<const std::byte> bytes, std::string where)
        : bytes_(bytes), where_(std::move(where)) {
        const auto directory = find_directory();
        auto at = directory.offset;
        for (std::uint64_t i = 0; i < directory.entries; ++i)
            at = read_entry(at, directory.offset + directory.size);
    }

    bool contains(std::string_view name) const { return entries_.contains(name); }

    /// The bytes of an entry; DataError when there is none.
    std::span<const std::byte> at(std::string_view name) const { return entry(name).data; }

    /// The CRC-32 that the directory gives an entry; DataError when there is none.
    std::uint32_t crc(std::string_view name) const { return entry(name).crc; }

    /// Compares an entry's CRC-32 with the directory's; DataError when they differ.
    void verify(std::string_view name) const {
        const auto& e = entry(name);
        if (crc32(e.data) != e.crc)
            fail("entry '" + std::string(name) + "' does not match its CRC-32",
                 "The file is damaged; write it again");
    }

    /// The one name that ends with "/data.pkl", without that ending: torch's root folder.
    std::string root_folder() const {
        for (const auto& [name, unused] : entries_)
            if (name.ends_with("/data.pkl")) return name.substr(0, name.size() - 9);
        fail("a zip without data.pkl",
             "Write it with torch.save or eyas; TorchScript and other zips are not feature files");
    }

private:
    struct Entry {
        std::span<const std::byte> data;
        std::uint32_t crc = 0;
    };
    struct Directory {
        std::uint64_t offset = 0, size = 0, entries = 0;
    };

    [[noreturn]] void fail(
        const std::string& what,
        const std::string& remedy = "The file is truncated or damaged; write it again") const {
        throw DataError(what, where_, remedy);
    }
    const Entry& entry(std::string_view name) const {
        const auto it = entries_.find(name);
        if (it == entries_.end()) fail("no entry '" + std::string(name) + "' in the zip");
        return it->second;
    }

    /// A little-endian number at an offset that is checked.
    template <class T>
    T number(std::uint64_t offset) const {
        if (offset > bytes_.size() || bytes_.size() - offset < sizeof(T))
            fail("truncated zip at offset " + std::to_string(offset));
        T v;
        std::memcpy(&v, bytes_.data() + offset, sizeof v);
        return v;
    }
    std::span<const std::byte> range(std::uint64_t offset, std::uint64_t size) const {
        if (offset > bytes_.size() || bytes_.size() - offset < size)
            fail("a zip record at offset " + std::to_string(offset) + " leaves the file");
        return bytes_.subspan(offset, size);
    }

    Directory find_directory() const {
        constexpr std::uint64_t end_size = 22, locator_size = 20;
        if (bytes_.size() < end_size) fail("too short for a zip");
        const auto last = bytes_.size() - end_size,
                   first = last - std::min<std::uint64_t>(last, 0xFFFF);
        for (auto at = last + 1; at-- > first;) {
            if (number<std::uint32_t>(at) != 0x06054b50u ||
                at + end_size + number<std::uint16_t>(at + 20) != bytes_.size())
                continue;
            Directory d{number<std::uint32_t>(at + 16), number<std::uint32_t>(at + 12),
                        number<std::uint16_t>(at + 10)};
            if (at >= locator_size && number<std::uint32_t>(at - locator_size) == 0x07064b50u) {
                const auto big = number<std::uint64_t>(at - locator_size + 8);
                if (number<std::uint32_t>(big) != 0x06064b50u) fail("bad ZIP64 end record");
                d = {number<std::uint64_t>(big + 48), number<std::uint64_t>(big + 40),
                     number<std::uint64_t>(big + 32)};
            }
            (void)range(d.offset, d.size);
            if (d.entries > d.size / 46) fail("the zip directory cannot hold its entries");
            return d;
        }
        fail("no zip directory at the end");
    }

    /// One central directory record; returns where the next begins.
    std::uint64_t read_entry(std::uint64_t at, std::uint64_t end) {
        if (at + 46 > end || number<std::uint32_t>(at) != 0x02014b50u)
            fail("bad record in the zip directory");
        const auto flags = number<std::uint16_t>(at + 8), method = number<std::uint16_t>(at + 10);
        const std::uint64_t name_size = number<std::uint16_t>(at + 28),
                            extra_size = number<std::uint16_t>(at + 30),
                            comment = number<std::uint16_t>(at + 32);
        std::uint64_t packed = number<std::uint32_t>(at + 20),
                      size = number<std::uint32_t>(at + 24),
                      header = number<std::uint32_t>(at + 42);
        const auto name_bytes = range(at + 46, name_size);
        const std::string name(reinterpret_cast<const char*>(name_bytes.data()), name_size);
        read_zip64(at + 46 + name_size, extra_size, size, packed, header);
        if (method != 0)
            fail("entry '" + name + "' is compressed",
                 "Write it with torch.save, which stores; or gzip the whole file");
        if (flags & 1u) fail("entry '" + name + "' is encrypted", "Write it without encryption");
        if (packed != size) fail("entry '" + name + "' has two sizes");
        if (number<std::uint32_t>(header) != 0x04034b50u)
            fail("entry '" + name + "' has no local header");
        const std::uint64_t data =
            header + 30 + number<std::uint16_t>(header + 26) + number<std::uint16_t>(header + 28);
        if (!entries_.emplace(name, Entry{range(data, size), number<std::uint32_t>(at + 16)})
                 .second)
            fail("entry '" + name + "' occurs twice");
        return at + 46 + name_size + extra_size + comment;
    }

    /// Replaces fields that are all ones by the 64-bit ones of extra field 1, in the order of the
    /// format.
    void read_zip64(std::uint64_t at, std::uint64_t extra_size, std::uint64_t& size,
                    std::uint64_t& packed, std::uint64_t& header) const {
        const auto end = at + extra_size;
        while (at + 4 <= end) {
            const auto id = number<std::uint16_t>(at);
            const std::uint64_t next = at + 4 + number<std::uint16_t>(at + 2);
            if (next > end) fail("bad extra field in the zip directory");
            std::uint64_t from = at + 4;
            for (auto* field : {&size, &packed, &header}) {
                if (id != 1 || *field != 0xFFFFFFFFu) continue;
                if (from + 8 > next) fail("short ZIP64 field in the zip directory");
                *field = number<std::uint64_t>(from);
                from += 8;
            }
            at = next;
        }
    }

    std::span<const std::byte> bytes_;
    std::string where_;
    std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace eyas
