#pragma once
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>

#include "eyas/core/error.hpp"

namespace eyas {

/// Where a transport listens or connects: eyas+tcp://HOST:PORT, eyas+ucx://HOST:PORT or
/// eyas+unix:///PATH. IPv6 hosts stand in brackets. Port 0: any free one (to listen).
struct Address {
    std::string scheme;  // "tcp", "unix", "ucx"
    std::string host;    // empty for unix
    std::uint16_t port = 0;
    std::string path;  // for unix; @NAME: a socket without a file

    std::string text() const {
        if (scheme == "unix") return "eyas+unix://" + path;
        const bool v6 = host.find(':') != std::string::npos;
        return "eyas+" + scheme + "://" + (v6 ? "[" + host + "]" : host) + ":" +
               std::to_string(port);
    }
    friend bool operator==(const Address&, const Address&) = default;
};

/// Whether text means to be an address (and not, for example, a directory's URI).
inline bool is_address(std::string_view text) { return text.starts_with("eyas+"); }

/// Throws ContractError for text of another form.
inline Address parse_address(const std::string& text) {
    const auto fail = [&](const std::string& what) -> ContractError {
        return {what, "'" + text + "'",
                "Use eyas+tcp://HOST:PORT, eyas+ucx://HOST:PORT or eyas+unix:///PATH"};
    };
    const auto slashes = text.find("://");
    if (!is_address(text) || slashes == std::string::npos || slashes == 5)
        throw fail("not an address");
    Address a{text.substr(5, slashes - 5), {}, 0, {}};
    const std::string_view rest = std::string_view(text).substr(slashes + 3);
    if (text.find('\0') != std::string::npos) throw fail("a zero byte in an address");
    if (a.scheme == "unix") {
        if (rest.size() < 2 || rest[0] != '/') throw fail("no absolute path");
        a.path = rest;
        return a;
    }
    const auto colon = rest.rfind(':');
    if (colon == std::string_view::npos || colon == 0) throw fail("no HOST:PORT");
    const auto digits = rest.substr(colon + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), a.port);
    if (error != std::errc{} || end != digits.data() + digits.size()) throw fail("not a port");
    a.host = rest.substr(0, colon);
    if (a.host.front() == '[' && a.host.back() == ']') a.host = a.host.substr(1, a.host.size() - 2);
    if (a.host.empty()) throw fail("no host");
    return a;
}

}  // namespace eyas
