#pragma once
#include <libdeflate.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "eyas/core/error.hpp"
#include "eyas/core/tensor.hpp"

namespace eyas {

/// Whether bytes begin like a gzip stream.
inline bool is_gzip(std::span<const std::byte> bytes) {
    return bytes.size() >= 2 && bytes[0] == std::byte{0x1F} && bytes[1] == std::byte{0x8B};
}

/// Decompresses a gzip file (RFC 1952; several members are joined) into memory. The output grows as
/// the data need it, up to deflate's own limit of 1032 times the input, whatever the file claims.
/// Throws DataError for damaged data, ResourceError when the output passes `largest` bytes.
inline Tensor gunzip(std::span<const std::byte> bytes, const std::string& where,
                     std::uint64_t largest = std::uint64_t{1} << 36) {
    const std::unique_ptr<libdeflate_decompressor, void (*)(libdeflate_decompressor*)> d(
        libdeflate_alloc_decompressor(), libdeflate_free_decompressor);
    if (!d) throw ResourceError("no memory for a decompressor", where, "Free some memory");
    const auto most = std::min<std::uint64_t>(largest, bytes.size() * 1032);
    std::uint32_t claimed = 0;  // the last member's size modulo 2^32: a first guess
    if (bytes.size() >= 4) std::memcpy(&claimed, bytes.data() + bytes.size() - 4, 4);
    auto capacity = std::min<std::uint64_t>(most, std::max<std::uint64_t>(claimed, bytes.size()));
    Tensor out(DType::U8, {static_cast<std::int64_t>(capacity)});
    std::uint64_t used = 0;
    while (!bytes.empty()) {
        std::size_t in = 0, got = 0;
        const auto r = libdeflate_gzip_decompress_ex(d.get(), bytes.data(), bytes.size(),
                                                     out.mutable_view().data + used,
                                                     capacity - used, &in, &got);
        if (r == LIBDEFLATE_SUCCESS) {
            used += got;
            bytes = bytes.subspan(in);
            continue;
        }
        if (r != LIBDEFLATE_INSUFFICIENT_SPACE)
            throw DataError("damaged gzip data", where, "Write the file again");
        if (capacity >= most)
            throw ResourceError("decompresses to more than " + std::to_string(most) + " bytes",
                                where, "Check the file");
        capacity = std::min<std::uint64_t>(most, capacity * 2);
        Tensor larger(DType::U8, {static_cast<std::int64_t>(capacity)});
        if (used) std::memcpy(larger.mutable_view().data, out.view().data, used);
        out = std::move(larger);
    }
    if (used == capacity) return out;
    Tensor exact(DType::U8, {static_cast<std::int64_t>(used)});
    if (used) std::memcpy(exact.mutable_view().data, out.view().data, used);
    return exact;
}

}  // namespace eyas
