#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>

#include "eyas/core/file.hpp"
#include "eyas/core/running_sums.hpp"
#include "eyas/store/concept.hpp"

namespace eyas::detail {

/// What a feature's bytes are compared with: the store's XXH3-64, or the CRC-32 of a payload that
/// has that; neither where nobody wants it.
struct ExpectedSums {
    std::optional<std::uint64_t> xxh3;
    std::optional<std::uint32_t> crc32;

    static ExpectedSums of(const StoredObject& object, const std::string& feature) {
        ExpectedSums e;
        if (const auto it = object.checksums.find(feature); it != object.checksums.end())
            e.xxh3 = it->second;
        if (const auto it = object.crcs.find(feature); it != object.crcs.end())
            e.crc32 = it->second;
        return e;
    }
    RunningSums start() const { return RunningSums(xxh3.has_value(), crc32.has_value()); }

    /// Throws DataError where the bytes had other sums.
    void require(const RunningSums& have, const std::string& feature, const ObjectKey& key) const {
        if ((!xxh3 || have.xxh3() == *xxh3) && (!crc32 || have.crc32() == *crc32)) return;
        throw DataError("checksum of '" + feature +
                            "' differs: its bytes changed after they were " +
                            (xxh3 ? "put" : "written"),
                        "sample '" + key.sample + "' generation " + std::to_string(key.generation),
                        "Ingest the sample again; check the disk");
    }
    /// The same for bytes in memory.
    void verify(std::span<const std::byte> bytes, const std::string& feature,
                const ObjectKey& key) const {
        if (!xxh3 && !crc32) return;
        auto sums = start();
        sums(bytes);
        require(sums, feature, key);
    }
};

/// Reads exactly these bytes of a file. DataError where it ends before, ResourceError where the
/// device fails.
inline void read_at(int fd, std::uint64_t offset, std::span<std::byte> to) {
    while (!to.empty()) {
        const auto n = ::pread(fd, to.data(), to.size(), static_cast<off_t>(offset));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw_errno("cannot read an object", "Store");
        if (n == 0)
            throw DataError("an object's file was cut short", "Store", "Ingest the sample again");
        offset += static_cast<std::uint64_t>(n);
        to = to.subspan(static_cast<std::size_t>(n));
    }
}

/// Whether a tensor's bytes are all in the file's mapping.
inline bool lies_in(const MappableFile& file, const TensorView& t) {
    const auto b = t.bytes();
    return !b.empty() && b.data() >= file.mapping.data() &&
           b.data() + b.size() <= file.mapping.data() + file.mapping.size();
}

/// A view that may be touched: the tensor itself, or, where it is mapped from a network file
/// system, what was read into `memory`: a server that fails is an error then, where a mapping would
/// end the process.
inline TensorView readable(const MappableFile& file, const TensorView& t, Tensor& memory) {
    if (!file.on_network || !lies_in(file, t)) return t;
    memory = Tensor(t.dtype, t.shape);
    read_at(file.descriptor, static_cast<std::uint64_t>(t.data - file.mapping.data()),
            memory.mutable_view().bytes());
    return memory.view();
}

/// A tensor of an object where it may be touched, in `memory` if need be.
inline TensorView readable(const StoredObject& object, std::size_t i, Tensor& memory) {
    const auto& t = object.tensors[i].tensor;
    if (t.data || !object.decode) return readable(object.file, t, memory);
    memory = Tensor(t.dtype, t.shape);
    object.decode(place_of(object, i), memory.mutable_view().bytes());
    return memory.view();
}

/// Takes the pages of a part of a mapping out of this process' count; they stay in the system's
/// cache. With what was mapped around them: a fault may map a whole piece of the cache.
inline void let_pages_go(std::span<const std::byte> part, std::span<const std::byte> mapping) {
    constexpr std::size_t piece = std::size_t{2} << 20;
    const auto offset = [](const std::byte* p) {
        return reinterpret_cast<std::uintptr_t>(p) % piece;
    };
    const auto* end = part.data() + part.size();
    const auto before = static_cast<std::size_t>(part.data() - mapping.data()),
               behind = static_cast<std::size_t>(mapping.data() + mapping.size() - end);
    const auto* from = part.data() - std::min(offset(part.data()), before);
    const auto* to = end + std::min((piece - offset(end)) % piece, behind);
    ::madvise(const_cast<std::byte*>(from), static_cast<std::size_t>(to - from), MADV_DONTNEED);
}

/// The XXH3-64 of every feature, from the bytes or from who knows it. Throws ContractError for a
/// feature that occurs twice or whose sum is not known, DataError for sums that are not as
/// announced.
inline Checksums checksums_of(std::span<const NamedTensor> tensors, const GivenChecksums& given,
                              const std::string& where) {
    Checksums sums;
    for (const auto& t : tensors) {
        if (given.known && !given.known->contains(t.name))
            throw ContractError("the checksum of '" + t.name + "' was not given", where,
                                "Give all checksums or none");
        const auto sum = given.known ? given.known->at(t.name) : xxh3(t.tensor.bytes());
        if (!sums.emplace(t.name, sum).second)
            throw ContractError("feature '" + t.name + "' occurs twice", where,
                                "Name each feature once");
    }
    if (given.announced && *given.announced != sums)
        throw DataError("the bytes are not those that were announced", where,
                        "Put the sample again");
    return sums;
}

/// A lease that was given back has nothing to show.
inline void require_held(const StoredObject& object, const ObjectKey& key) {
    if (object.tensors.empty())
        throw ContractError("the lease was given back", "sample '" + key.sample + "'",
                            "Acquire the sample again");
}

inline void check_buffer(const NamedBuffer& b, const TensorView& t, const ObjectKey& key) {
    if (b.buffer.dtype != t.dtype || !(b.buffer.shape == t.shape))
        throw ContractError("the buffer of '" + b.name + "' is " +
                                std::string(name_of(b.buffer.dtype)) + " " + b.buffer.shape.text() +
                                ", the feature " + std::string(name_of(t.dtype)) + " " +
                                t.shape.text(),
                            "sample '" + key.sample + "'", "Take shapes from the ref's specs");
}

}  // namespace eyas::detail
