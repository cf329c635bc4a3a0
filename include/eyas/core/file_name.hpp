#pragma once
#include <string>
#include <string_view>

#include "eyas/core/error.hpp"

namespace eyas {

/// A file name that stands for `id` and cannot leave its directory: letters, digits and `_ - : .`
/// stay (a leading dot does not), every other byte becomes %XX. Reversible.
/// ':' stays so that names equal the reference's ("run:00000000.g1.ckpt").
/// Throws ContractError for an empty id, and when the name would pass 200 bytes (file systems stop
/// at 255 and the store adds a suffix).
inline std::string encode_file_name(std::string_view id) {
    std::string out;
    for (std::size_t i = 0; i < id.size(); ++i) {
        const char c = id[i];
        const bool alnum =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (alnum || c == '_' || c == '-' || c == ':' || (c == '.' && i > 0)) {
            out += c;
        } else {
            const auto u = static_cast<unsigned char>(c);
            out += {'%', "0123456789ABCDEF"[u >> 4], "0123456789ABCDEF"[u & 15]};
        }
    }
    if (out.empty() || out.size() > 200)
        throw ContractError(
            out.empty() ? "empty id" : "id of " + std::to_string(id.size()) + " bytes",
            "encode_file_name", "Use ids of 1 to 200 bytes once encoded");
    return out;
}

/// The inverse. Throws DataError for a name that encode_file_name did not make.
inline std::string decode_file_name(std::string_view name) {
    const auto digit = [](char c) {
        return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    };
    std::string out;
    for (std::size_t i = 0; i < name.size(); ++i) {
        if (name[i] != '%') {
            out += name[i];
            continue;
        }
        const int hi = i + 2 < name.size() ? digit(name[i + 1]) : -1;
        const int lo = i + 2 < name.size() ? digit(name[i + 2]) : -1;
        if (hi < 0 || lo < 0)
            throw DataError("not an encoded id", std::string(name), "Remove the stray file");
        out += static_cast<char>(hi * 16 + lo);
        i += 2;
    }
    return out;
}

}  // namespace eyas
