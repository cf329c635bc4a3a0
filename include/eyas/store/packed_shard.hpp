#pragma once
#include <charconv>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eyas/core/checksum.hpp"
#include "eyas/core/file.hpp"
#include "eyas/store/concept.hpp"
#include "eyas/store/pack_index.hpp"
#include "eyas/store/scaled_feature.hpp"

namespace eyas::detail {

/// A safetensors file of many samples, mapped once for all its readers and opened by its binary
/// index: the JSON header is not read. Objects that were opened keep the mapping, also after the
/// file was removed. Thread-safe.
class PackedShard {
public:
    static constexpr std::string_view index_name = "__eyas_index__", suffix = ".safetensors";
    static constexpr std::uint64_t alignment = 64, longest_header = 100'000'000;

    /// Throws DataError for anything but a whole shard, ResourceError when it cannot be mapped.
    explicit PackedShard(const std::filesystem::path& path)
        : file_(path),
          data_at_(data_offset(file_)),
          index_(file_.bytes().subspan(data_at_), path.string()) {}

    /// "shard-00007.safetensors"
    static std::string file_name(std::size_t number) {
        const auto digits = std::to_string(number);
        return "shard-" + std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits +
               std::string(suffix);
    }
    static bool is_file_name(std::string_view name) {
        constexpr std::string_view front = "shard-";
        if (!name.starts_with(front) || !name.ends_with(suffix)) return false;
        const auto digits = name.substr(front.size(), name.size() - front.size() - suffix.size());
        return digits.size() >= 5 &&
               digits.find_first_not_of("0123456789") == std::string_view::npos;
    }

    const PackIndex& index() const { return index_; }
    const std::filesystem::path& path() const { return file_.path(); }
    const MappedFile& file() const { return file_; }

    /// The sample at a place of the index. States in float8 are decoded into their own dtype when
    /// they are read; the bytes that they lie in are compared with their checksums then where
    /// `verify` says so, since what a reader gets has none.
    StoredObject open(std::size_t place, bool verify) const {
        const auto sample = std::make_shared<const PackedSample>(index_.at(place));
        StoredObject object{{},
                            {},
                            std::make_shared<MappedFile>(file_),
                            {file_.descriptor(), file_.bytes(), file_.on_network()}};
        bool scaled = false;
        for (const auto& f : sample->features) {
            if (f.encoding == Encoding::Plain) {
                object.tensors.push_back(
                    {f.name, {file_.bytes().data() + data_at_ + f.data.offset, f.dtype, f.shape}});
                object.checksums[f.name] = f.data.checksum;
            } else {
                object.tensors.push_back({f.name, {nullptr, f.dtype, f.shape}});
                scaled = true;
            }
        }
        if (scaled)
            object.decode = [file = file_, at = data_at_, sample, verify](std::uint32_t i,
                                                                          std::span<std::byte> to) {
                const auto& f = sample->features.at(i);
                decode_scaled({file, at, f, sample->id + "/" + f.name, verify}, to);
            };
        return object;
    }

    /// Bytes of a sample as they lie in the shard.
    std::uint64_t stored_bytes(std::size_t place) const {
        std::uint64_t n = 0;
        for (const auto& f : index_.at(place).features) n += f.data.bytes + f.scales.bytes;
        return n;
    }

private:
    static std::uint64_t data_offset(const MappedFile& file) {
        const auto bytes = file.bytes();
        std::uint64_t length = 0;
        if (bytes.size() >= sizeof length) std::memcpy(&length, bytes.data(), sizeof length);
        const auto header = sizeof length + length;
        if (length == 0 || length > longest_header || header > bytes.size() ||
            header % alignment != 0)
            throw DataError("not a shard of packed samples", file.path().string(),
                            "Name one that eyas pack wrote; if this is one, pack again");
        return header;
    }

    MappedFile file_;
    std::uint64_t data_at_;  // of the data section in the file
    PackIndex index_;
};

/// Where a packed sample is, as refs spell it: file:///DIR/shard-00007.safetensors#IDENTITY. The
/// identity (16 hexadecimal digits) is the shard's, so that a ref never comes to mean other bytes;
/// without one it is whatever shard has the name.
struct ShardLocation {
    std::filesystem::path file;
    std::optional<std::uint64_t> identity = {};

    static constexpr std::string_view scheme = "file://";

    /// Nothing for a location of another kind.
    static std::optional<ShardLocation> parse(std::string_view text) {
        if (!text.starts_with(scheme)) return std::nullopt;
        text.remove_prefix(scheme.size());
        ShardLocation l;
        constexpr std::size_t digits = 16;
        if (text.size() > digits && text[text.size() - digits - 1] == '#') {
            const auto number = text.substr(text.size() - digits);
            std::uint64_t v = 0;
            const auto [end, error] = std::from_chars(number.data(), number.data() + digits, v, 16);
            if (error != std::errc{} || end != number.data() + digits) return std::nullopt;
            l.identity = v;
            text.remove_suffix(digits + 1);
        }
        l.file = text;
        return PackedShard::is_file_name(l.file.filename().native()) ? std::optional(l)
                                                                     : std::nullopt;
    }
    std::string text() const {
        return std::string(scheme) + file.string() + (identity ? "#" + hex64(*identity) : "");
    }
};

}  // namespace eyas::detail
