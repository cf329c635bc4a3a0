#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "eyas/core/checksum.hpp"

namespace eyas {

/// XXH3-64 and CRC-32 of bytes that come piece by piece, each where it is wanted. Cheap to make.
class RunningSums {
public:
    explicit RunningSums(bool want_xxh3, bool want_crc32 = false)
        : want_xxh3_(want_xxh3), want_crc32_(want_crc32) {
        if (want_xxh3_) XXH3_64bits_reset(&state_);
    }

    /// Adds bytes, piece by piece where both sums are wanted, so that they cross memory once.
    void operator()(std::span<const std::byte> bytes) {
        const auto step = want_xxh3_ && want_crc32_ ? piece : bytes.size();
        for (std::size_t at = 0; at < bytes.size(); at += step) {
            const auto part = bytes.subspan(at, std::min(step, bytes.size() - at));
            if (want_xxh3_) XXH3_64bits_update(&state_, part.data(), part.size());
            if (want_crc32_) crc32_ = eyas::crc32(part, crc32_);
        }
    }

    std::uint64_t xxh3() const { return XXH3_64bits_digest(&state_); }
    std::uint32_t crc32() const { return crc32_; }

private:
    static constexpr std::size_t piece = std::size_t{16} * 1024;

    XXH3_state_t state_;
    std::uint32_t crc32_ = 0;
    bool want_xxh3_, want_crc32_;
};

}  // namespace eyas
