#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eyas/core/checksum.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/transport/wire.hpp"

namespace eyas::detail {

/// How a feature's bytes are to be understood.
enum class Encoding : std::uint8_t { Plain, ScaledE4M3 };

/// Bytes in a shard's data section.
struct PackedRange {
    std::uint64_t offset = 0, bytes = 0, checksum = 0;  // XXH3-64
};

/// A feature of a packed sample; dtype and shape are those that readers see.
struct PackedFeature {
    std::string name;
    DType dtype = DType::F32;
    Shape shape;
    Encoding encoding = Encoding::Plain;
    PackedRange data = {};
    std::uint32_t groups = 0;  // of columns, with ScaledE4M3: scales are float32 [rows, groups]
    PackedRange scales = {};

    DType stored_dtype() const { return encoding == Encoding::Plain ? dtype : DType::F8E4M3; }
    /// [rows, groups]; the width is the last extent.
    Shape scale_shape() const {
        const auto width = shape[shape.rank() - 1];
        return {width ? shape.elements() / width : 0, static_cast<std::int64_t>(groups)};
    }
};

struct PackedSample {
    std::string id;
    std::vector<PackedFeature> features;
};

/// The binary index of a shard, which lies first in its data section, so that a shard is opened
/// without its JSON header. Integers are little endian:
///
///   magic u64, version u32, samples u32, bytes of the index u64, XXH3-64 of all that follows u64,
///   what it was packed from u64, bytes of the data section u64,
///   place of each sample's record in the index u64, in ascending order of ids, then the records:
///   id (u32 length, bytes), features u32, each: name (u32 length, bytes), dtype u8, encoding u8,
///   rank u8, extents i64, offset u64, bytes u64, checksum u64; and where the encoding is
///   ScaledE4M3: groups u32, offset, bytes, checksum of the scales.
///
/// All of it is checked on construction, whatever the bytes are: every range lies in the data
/// section behind the index, is aligned for its type, and fits dtype and shape; ids ascend. Views
/// the bytes, which must outlive it. Reading is thread-safe.
class PackIndex {
public:
    static constexpr std::uint64_t magic = 0x4B43415053415945;  // "EYASPACK"
    static constexpr std::uint32_t version = 1;
    static constexpr std::size_t header_bytes = 48, checksum_at = 24, sealed_from = 32;
    static constexpr std::size_t longest_id = 4096, most_features = 64;

    /// `data`: a shard's whole data section. Throws DataError that names `where`.
    PackIndex(std::span<const std::byte> data, std::string where)
        : where_(std::move(where)), bytes_(data) {
        auto r = reader(0);
        if (data.size() < header_bytes || r.get<std::uint64_t>() != magic)
            r.fail("no index of packed samples");
        if (const auto v = r.get<std::uint32_t>(); v != version)
            r.fail("version " + std::to_string(v));
        size_ = r.get<std::uint32_t>();
        const auto index_bytes = r.get<std::uint64_t>();
        identity_ = r.get<std::uint64_t>();
        plan_ = r.get<std::uint64_t>();
        const auto data_bytes = r.get<std::uint64_t>();
        if (data_bytes != data.size())
            r.fail("the data are " + std::to_string(data.size()) + " bytes, not " +
                   std::to_string(data_bytes));
        if (index_bytes < header_bytes || index_bytes > data.size() ||
            size_ > (index_bytes - header_bytes) / sizeof(std::uint64_t))
            r.fail("an index of " + std::to_string(index_bytes) + " bytes");
        bytes_ = data.first(index_bytes);
        if (xxh3(bytes_.subspan(sealed_from)) != identity_) r.fail("its checksum differs");
        for (std::size_t i = 0; i < size_; ++i) check(i, data_bytes);
    }

    std::size_t size() const { return size_; }
    std::size_t bytes() const { return bytes_.size(); }
    /// The checksum: it covers ids, shapes and the checksums of all bytes, so it stands for all
    /// that the shard holds.
    std::uint64_t identity() const { return identity_; }
    std::uint64_t plan() const { return plan_; }  // a number that tells what was packed, and how

    std::string_view id(std::size_t i) const {
        auto r = record(i);
        return id_of(r);
    }
    PackedSample at(std::size_t i) const {
        auto r = record(i);
        PackedSample s{std::string(id_of(r)), {}};
        s.features.resize(r.count(most_features, 1));
        for (auto& f : s.features) f = feature(r);
        return s;
    }
    /// The place of a sample; nothing when it is not in the shard.
    std::optional<std::size_t> find(std::string_view wanted) const {
        std::size_t from = 0, to = size_;
        while (from < to) {
            const auto middle = from + (to - from) / 2;
            if (id(middle) < wanted)
                from = middle + 1;
            else
                to = middle;
        }
        return from < size_ && id(from) == wanted ? std::optional(from) : std::nullopt;
    }

    /// Appends a sample's record.
    static void write(WireWriter& w, const PackedSample& s) {
        w.text(s.id).put(static_cast<std::uint32_t>(s.features.size()));
        const auto range = [&](const PackedRange& p) {
            w.put(p.offset).put(p.bytes).put(p.checksum);
        };
        for (const auto& f : s.features) {
            w.text(f.name).put(static_cast<std::uint8_t>(f.dtype));
            w.put(static_cast<std::uint8_t>(f.encoding));
            w.put(static_cast<std::uint8_t>(f.shape.rank()));
            for (const auto d : f.shape.dims()) w.put(d);
            range(f.data);
            if (f.encoding == Encoding::Plain) continue;
            w.put(f.groups);
            range(f.scales);
        }
    }

private:
    WireReader reader(std::uint64_t at) const {
        return {bytes_.subspan(std::min<std::uint64_t>(at, bytes_.size())), where_, "index",
                "Pack the samples again"};
    }
    WireReader record(std::size_t i) const {
        return reader(reader(header_bytes + i * sizeof(std::uint64_t)).get<std::uint64_t>());
    }

    static std::string_view id_of(WireReader& r) {
        const auto b = r.raw(r.count(longest_id, 1));
        return {reinterpret_cast<const char*>(b.data()), b.size()};
    }

    static PackedFeature feature(WireReader& r) {
        PackedFeature f;
        f.name = r.text(256);
        const auto dtype = r.get<std::uint8_t>(), encoding = r.get<std::uint8_t>(),
                   rank = r.get<std::uint8_t>();
        if (dtype >= dtype_table.size() || encoding > 1 || rank > Shape::max_rank)
            r.fail("dtype, encoding or rank of '" + f.name + "'");
        f.dtype = static_cast<DType>(dtype);
        f.encoding = static_cast<Encoding>(encoding);
        std::array<std::int64_t, Shape::max_rank> dims{};
        for (std::size_t i = 0; i < rank; ++i) dims[i] = r.get<std::int64_t>();
        f.shape = Shape(std::span(dims.data(), rank));
        f.data = range(r);
        if (f.encoding == Encoding::Plain) return f;
        f.groups = r.get<std::uint32_t>();
        f.scales = range(r);
        return f;
    }
    static PackedRange range(WireReader& r) {
        const auto offset = r.get<std::uint64_t>(), bytes = r.get<std::uint64_t>();
        return {offset, bytes, r.get<std::uint64_t>()};
    }

    void check(std::size_t i, std::uint64_t data_bytes) const {
        const auto r = record(i);
        const auto s = at(i);
        if (s.id.empty() || (i > 0 && !(id(i - 1) < s.id)))
            r.fail("sample " + std::to_string(i) + " is out of order");
        const auto inside = [&](const PackedFeature& f, const PackedRange& p, DType dtype,
                                const Shape& shape) {
            const auto each = size_of(dtype);
            if (p.bytes != static_cast<std::uint64_t>(shape.elements()) * each ||
                p.offset < bytes_.size() || p.offset > data_bytes ||
                p.bytes > data_bytes - p.offset || p.offset % each != 0)
                r.fail("bytes of '" + s.id + "/" + f.name + "'");
        };
        for (std::size_t n = 0; n < s.features.size(); ++n) {
            const auto& f = s.features[n];
            if (f.name.empty()) r.fail("a feature without a name");
            for (std::size_t m = 0; m < n; ++m)
                if (s.features[m].name == f.name) r.fail("'" + f.name + "' occurs twice");
            inside(f, f.data, f.stored_dtype(), f.shape);
            if (f.encoding == Encoding::Plain) continue;
            const auto rank = f.shape.rank();
            if ((f.dtype != DType::BF16 && f.dtype != DType::F32) || rank == 0 || f.groups == 0 ||
                f.shape[rank - 1] == 0 || f.shape[rank - 1] % f.groups != 0)
                r.fail("scales of '" + s.id + "/" + f.name + "'");
            inside(f, f.scales, DType::F32, f.scale_shape());
        }
    }

    std::string where_;
    std::span<const std::byte> bytes_;  // the index
    std::size_t size_ = 0;
    std::uint64_t identity_ = 0, plan_ = 0;
};

/// The index of samples whose ranges are known, padded with zeros to `bytes`; `samples` ascend by
/// id.
inline std::vector<std::byte> write_pack_index(std::span<const PackedSample> samples,
                                               std::uint64_t plan, std::uint64_t data_bytes,
                                               std::size_t bytes) {
    WireWriter places, records;
    for (const auto& s : samples) {
        places.put(static_cast<std::uint64_t>(PackIndex::header_bytes +
                                              samples.size() * sizeof(std::uint64_t) +
                                              records.bytes().size()));
        PackIndex::write(records, s);
    }
    const std::vector<std::byte> zeros(bytes - PackIndex::header_bytes - places.bytes().size() -
                                       records.bytes().size());
    WireWriter rest;
    rest.put(plan).put(data_bytes).raw(places.bytes()).raw(records.bytes()).raw(zeros);
    WireWriter w;
    w.put(PackIndex::magic).put(PackIndex::version);
    w.put(static_cast<std::uint32_t>(samples.size())).put(static_cast<std::uint64_t>(bytes));
    w.put(xxh3(rest.bytes())).raw(rest.bytes());
    return {w.bytes().begin(), w.bytes().end()};
}

}  // namespace eyas::detail
