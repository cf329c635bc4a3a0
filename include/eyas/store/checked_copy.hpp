#pragma once
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "eyas/core/checksum.hpp"
#include "eyas/core/file.hpp"
#include "eyas/store/concept.hpp"

namespace eyas::detail {

/// Gets bytes to `to` with `get(at, part)` and returns the XXH3-64 of what arrived, block by block,
/// so that each block is hashed while it is in the cache: one pass over memory instead of two.
template <class Get>
std::uint64_t get_and_hash(std::span<std::byte> to, const Get& get) {
    constexpr std::size_t block = std::size_t{128} * 1024;
    if (to.size() <= block) {
        if (!to.empty()) get(std::size_t{0}, to);
        return XXH3_64bits(to.data(), to.size());
    }
    const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(),
                                                                                XXH3_freeState);
    if (!state) throw ResourceError("no memory for a checksum", "Store", "Free some memory");
    XXH3_64bits_reset(state.get());
    for (std::size_t at = 0; at < to.size(); at += block) {
        const auto part = to.subspan(at, std::min(block, to.size() - at));
        get(at, part);
        XXH3_64bits_update(state.get(), part.data(), part.size());
    }
    return XXH3_64bits_digest(state.get());
}

/// Reads exactly these bytes of a file. DataError where it ends before, ResourceError where the
/// device fails (a mapping would end the process).
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

/// Copies a tensor of an opened object and returns the XXH3-64 of what arrived, if it is wanted.
/// What lies in a file on disk is read, which costs less than the page faults of a fresh mapping.
inline std::optional<std::uint64_t> copy_out(const StoredObject& object, const TensorView& t,
                                             std::span<std::byte> to, bool hash) {
    const auto& file = object.file;
    const auto from = t.bytes();
    const bool read = file.descriptor >= 0 && !file.in_memory && !from.empty() &&
                      from.data() >= file.mapping.data() &&
                      from.data() + from.size() <= file.mapping.data() + file.mapping.size();
    const auto get = [&](std::size_t at, std::span<std::byte> part) {
        if (read)
            read_at(file.descriptor,
                    static_cast<std::uint64_t>(from.data() - file.mapping.data()) + at, part);
        else
            std::memcpy(part.data(), from.data() + at, part.size());
    };
    if (hash) return get_and_hash(to, get);
    if (!to.empty()) get(std::size_t{0}, to);
    return std::nullopt;
}

/// The XXH3-64 of every feature. Throws ContractError for a feature that occurs twice.
inline Checksums checksums_of(std::span<const NamedTensor> tensors, const std::string& where) {
    Checksums sums;
    for (const auto& t : tensors)
        if (!sums.emplace(t.name, xxh3(t.tensor.bytes())).second)
            throw ContractError("feature '" + t.name + "' occurs twice", where,
                                "Name each feature once");
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

inline void require_sum(std::uint64_t have, std::uint64_t want, const std::string& feature,
                        const ObjectKey& key) {
    if (have != want)
        throw DataError(
            "checksum of '" + feature + "' differs: its bytes changed after they were put",
            "sample '" + key.sample + "' generation " + std::to_string(key.generation),
            "Ingest the sample again; check the disk");
}

}  // namespace eyas::detail
