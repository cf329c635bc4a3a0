#pragma once
#include <crypt.h>
#include <sys/random.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "eyas/core/error.hpp"

namespace eyas::detail {

/// crypt(3) with a setting or an existing record.
inline std::string crypt_text(const std::string& token, const std::string& setting) {
    const auto data = std::make_unique<crypt_data>();
    std::memset(data.get(), 0, sizeof *data);
    const char* out = crypt_r(token.c_str(), setting.c_str(), data.get());
    if (!out || out[0] == '*')
        throw DataError("not a credential record", "store credential",
                        "Remove the store's .eyas-credential file");
    return out;
}

/// A salted one-way record of a token (SHA-512 crypt): it proves the token, it does not reveal it.
inline std::string make_credential_record(const std::string& token) {
    unsigned char random[12];
    if (::getrandom(random, sizeof random, 0) != static_cast<ssize_t>(sizeof random))
        throw ResourceError("no random bytes", "store credential",
                            "Check the system's random source");
    std::string salt = "$6$";
    for (unsigned char c : random)
        salt += "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[c % 64];
    return crypt_text(token, salt);
}

/// Whether the token is the record's; the comparison takes the same time wherever they differ.
inline bool credential_matches(const std::string& token, const std::string& record) {
    const auto mine = crypt_text(token, record);
    unsigned difference = mine.size() != record.size();
    for (std::size_t i = 0; i < mine.size(); ++i)
        difference |= static_cast<unsigned char>(mine[i]) ^
                      static_cast<unsigned char>(record[i % record.size()]);
    return difference == 0;
}

}  // namespace eyas::detail
