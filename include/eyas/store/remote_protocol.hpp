#pragma once
#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/store/concept.hpp"
#include "eyas/transport/concept.hpp"
#include "eyas/transport/wire.hpp"

// What a pool's client and its service say to each other, inside the transport's messages. Every
// request begins with its Operation; docs/formats.md has the table. All decoders take hostile
// bytes: DataError for what is not in form.
namespace eyas::detail {

enum class Operation : std::uint8_t {
    Open = 1,     // key -> lease, tensors (and the file they lie in, on one machine)
    Read = 2,     // lease, places -> the tensors' bytes as parts
    Close = 3,    // leases
    Put = 4,      // sample, tensors, their bytes as parts -> generation
    Erase = 5,    // key
    Objects = 6,  // -> one part: the list
    Uri = 7       // key -> text
};

inline constexpr std::size_t most_tensors = MessageBounds::parts;
inline constexpr std::size_t longest_name = 512;
inline constexpr std::size_t most_closed = 4096;  // leases in one Close

inline void write_key(WireWriter& w, const ObjectKey& key) {
    w.text(key.sample).put(key.generation).text(key.location);
}
inline ObjectKey read_key(WireReader& r) {
    ObjectKey key;
    key.sample = r.text();
    key.generation = r.get<std::int64_t>();
    key.location = r.text();
    if (key.sample.empty() || key.generation < 0) r.fail("not an object's key");
    return key;
}

/// A tensor without its bytes.
struct TensorRecord {
    std::string name;
    DType dtype = DType::U8;
    Shape shape;
    std::uint64_t checksum = 0;  // XXH3-64 of its bytes
    std::uint64_t offset = 0;    // in the file that was handed over with the message

    std::uint64_t bytes() const {
        return static_cast<std::uint64_t>(shape.elements()) * size_of(dtype);
    }

    void write(WireWriter& w) const {
        w.text(name).put(static_cast<std::uint8_t>(dtype));
        w.put(static_cast<std::uint8_t>(shape.rank()));
        for (const auto d : shape.dims()) w.put(d);
        w.put(checksum).put(offset);
    }
    static TensorRecord read(WireReader& r) {
        TensorRecord t;
        t.name = r.text(longest_name);
        const auto dtype = r.get<std::uint8_t>();
        const auto rank = r.get<std::uint8_t>();
        if (dtype >= dtype_table.size() || rank > Shape::max_rank)
            r.fail("a tensor of dtype " + std::to_string(dtype) + ", rank " + std::to_string(rank));
        t.dtype = static_cast<DType>(dtype);
        std::vector<std::int64_t> dims(rank);
        for (auto& d : dims) d = r.get<std::int64_t>();
        t.shape = Shape{std::span<const std::int64_t>(dims)};
        // bytes() throws DataError for an impossible shape.
        if (t.bytes() > MessageBounds::body) r.fail("a tensor beyond the largest message");
        t.checksum = r.get<std::uint64_t>();
        t.offset = r.get<std::uint64_t>();
        return t;
    }
};

inline void write_records(WireWriter& w, const std::vector<TensorRecord>& all) {
    w.put(static_cast<std::uint32_t>(all.size()));
    for (const auto& t : all) t.write(w);
}
inline std::vector<TensorRecord> read_records(WireReader& r) {
    std::vector<TensorRecord> all(r.count(most_tensors, 22));
    for (auto& t : all) t = TensorRecord::read(r);
    return all;
}

/// The answer to Open.
struct OpenedRecord {
    std::uint64_t lease = 0;
    std::vector<TensorRecord> tensors = {};
    std::uint64_t file_bytes = 0;  // of the file that was handed over; 0: none was

    void write(WireWriter& w) const {
        w.put(lease).put(file_bytes);
        write_records(w, tensors);
    }
    static OpenedRecord read(WireReader& r) {
        OpenedRecord o;
        o.lease = r.get<std::uint64_t>();
        o.file_bytes = r.get<std::uint64_t>();
        o.tensors = read_records(r);
        r.end();
        for (const auto& t : o.tensors)
            if (o.file_bytes > 0 &&
                (t.offset > o.file_bytes || t.bytes() > o.file_bytes - t.offset))
                r.fail("tensor '" + t.name + "' lies outside its file");
        return o;
    }
};

/// A request to put; the tensors' bytes are the message's parts, in this order.
struct PutRecord {
    std::uint64_t token = 0;  // the same when a put is sent again because its answer was lost
    std::string sample;
    std::vector<TensorRecord> tensors = {};

    void write(WireWriter& w) const {
        w.put(token).text(sample);
        write_records(w, tensors);
    }
    static PutRecord read(WireReader& r) {
        PutRecord p;
        p.token = r.get<std::uint64_t>();
        p.sample = r.text();
        p.tensors = read_records(r);
        r.end();
        return p;
    }
};

inline void write_objects(WireWriter& w, const std::vector<ObjectInfo>& all) {
    for (const auto& o : all) {
        write_key(w, o.key);
        w.put(o.bytes).put(std::bit_cast<std::uint64_t>(o.age_seconds));
    }
}
inline std::vector<ObjectInfo> read_objects(std::span<const std::byte> bytes, std::uint64_t count,
                                            const std::string& where) {
    WireReader r(bytes, where);
    std::vector<ObjectInfo> all;
    for (std::uint64_t i = 0; i < count; ++i) {
        ObjectInfo o;
        o.key = read_key(r);
        o.bytes = r.get<std::uint64_t>();
        o.age_seconds = std::bit_cast<double>(r.get<std::uint64_t>());
        if (!(o.age_seconds >= -1e12 && o.age_seconds <= 1e12)) r.fail("an impossible age");
        all.push_back(std::move(o));
    }
    r.end();
    return all;
}

}  // namespace eyas::detail
