#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace eyas::detail {

/// Bytes that are looked at in one piece while they are copied: a page, which stays in the first
/// cache between the two.
inline constexpr std::size_t copy_piece = 4096;

/// A copy of so many bytes bypasses the caches: what is that long is read again, if at all, when it
/// has long left them, and a store that does not read its line first takes a third less traffic.
inline constexpr std::size_t bypass_from = std::size_t{1} << 20;

/// Copies n bytes past the caches, a multiple of 64, to an address that is a multiple of 16;
/// fetches what follows at `ahead` meanwhile. Ends without a fence.
inline void copy_past_caches(std::byte* to, const std::byte* from, std::size_t n,
                             std::size_t ahead) {
#ifdef __SSE2__
    for (std::size_t i = 0; i < n; i += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(from + i + ahead), _MM_HINT_T0);
        __m128i line[4];
        for (std::size_t k = 0; k < 4; ++k)
            line[k] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i) + k);
        for (std::size_t k = 0; k < 4; ++k)
            _mm_stream_si128(reinterpret_cast<__m128i*>(to + i) + k, line[k]);
    }
#else
    (void)ahead;
    std::memcpy(to, from, n);
#endif
}

/// Copies bytes that do not overlap (`bypass`: past the caches), and shows each piece to
/// `look(piece of from)` while it is in the cache: one pass over memory for a copy and its
/// checksum. The pieces come in order and are all of copy_piece bytes but the last.
template <class Look>
void copy_and_look(std::span<std::byte> to, std::span<const std::byte> from, bool bypass,
                   Look& look) {
    bypass = bypass && reinterpret_cast<std::uintptr_t>(to.data()) % 16 == 0;
    for (std::size_t at = 0; at < from.size(); at += copy_piece) {
        const auto piece = from.subspan(at, std::min(copy_piece, from.size() - at));
        look(piece);
        if (bypass && piece.size() == copy_piece) {
            const auto left = from.size() - at - copy_piece;
            copy_past_caches(to.data() + at, piece.data(), copy_piece,
                             left >= copy_piece ? copy_piece : 0);
        } else {
            std::memcpy(to.data() + at, piece.data(), piece.size());
        }
    }
#ifdef __SSE2__
    if (bypass) _mm_sfence();
#endif
}

}  // namespace eyas::detail
