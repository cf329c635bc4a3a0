#pragma once
#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>

#include "eyas/core/error.hpp"

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

}  // namespace eyas::detail
