#pragma once
#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "eyas/core/checksum.hpp"
#include "eyas/store/concept.hpp"

namespace eyas::detail {

/// Copies and returns the XXH3-64 of what arrived, block by block, so that each block is hashed
/// while it is in the cache: one pass over memory instead of two.
inline std::uint64_t copy_and_hash(std::span<const std::byte> from, std::byte* to) {
    constexpr std::size_t block = std::size_t{128} * 1024;
    if (from.size() <= block) {
        if (!from.empty()) std::memcpy(to, from.data(), from.size());
        return XXH3_64bits(to, from.size());
    }
    const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(),
                                                                                XXH3_freeState);
    if (!state)
        throw ResourceError("no memory for a checksum", "copy_and_hash", "Free some memory");
    XXH3_64bits_reset(state.get());
    for (std::size_t at = 0; at < from.size(); at += block) {
        const auto n = std::min(block, from.size() - at);
        std::memcpy(to + at, from.data() + at, n);
        XXH3_64bits_update(state.get(), to + at, n);
    }
    return XXH3_64bits_digest(state.get());
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
