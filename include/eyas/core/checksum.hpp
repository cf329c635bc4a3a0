#pragma once
#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL  // header-only use of xxHash
#endif
#include <libdeflate.h>
#include <xxhash.h>

#include <cstdint>
#include <span>
#include <string>

namespace eyas {

/// XXH3-64 of the bytes: what a store records per tensor (detects corruption, not malice).
inline std::uint64_t xxh3(std::span<const std::byte> bytes) {
    return XXH3_64bits(bytes.data(), bytes.size());
}

/// 16 lower-case hexadecimal digits.
inline std::string hex64(std::uint64_t value) {
    std::string s(16, '0');
    for (std::size_t i = 16; i-- > 0; value >>= 4) s[i] = "0123456789abcdef"[value & 15];
    return s;
}

/// CRC-32 as zip and gzip use it.
inline std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t seed = 0) {
    return libdeflate_crc32(seed, bytes.data(), bytes.size());
}

}  // namespace eyas
