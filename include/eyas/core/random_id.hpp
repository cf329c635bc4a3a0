#pragma once
#include <sys/random.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "eyas/core/checksum.hpp"
#include "eyas/core/error.hpp"

namespace eyas::detail {

using Id128 = std::array<std::byte, 16>;

/// Unpredictable bytes of the system. Throws ResourceError when there are none.
inline Id128 random_id() {
    Id128 id;
    if (::getrandom(id.data(), id.size(), 0) != static_cast<ssize_t>(id.size()))
        throw ResourceError("no random bytes", "getrandom", "Check the system's random source");
    return id;
}

inline std::uint64_t random_u64() {
    const auto id = random_id();
    std::uint64_t n = 0;
    std::memcpy(&n, id.data(), sizeof n);
    return n;
}

/// 16 hexadecimal digits.
inline std::string random_hex() { return hex64(random_u64()); }

}  // namespace eyas::detail
