#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <system_error>

#include "eyas/core/error.hpp"

namespace eyas {

/// A store as a user names it: scheme:PATH?key=value&key=value
struct StoreUri {
    std::string scheme;
    std::filesystem::path path;
    std::map<std::string, std::string> parameters;
    std::string text;  // as it was given
};

/// Throws ContractError for text of another form.
inline StoreUri parse_store_uri(const std::string& text) {
    const auto colon = text.find(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == text.size())
        throw ContractError("not a store URI", "'" + text + "'",
                            "Use file:DIR, disagg:DIR?store_id=NAME or eyas+tcp://HOST:PORT");
    StoreUri uri{text.substr(0, colon), {}, {}, text};
    const auto question = text.find('?', colon);
    uri.path = text.substr(
        colon + 1, question == std::string::npos ? std::string::npos : question - colon - 1);
    std::string_view rest = question == std::string::npos
                                ? std::string_view()
                                : std::string_view(text).substr(question + 1);
    while (!rest.empty()) {
        const auto part = rest.substr(0, rest.find('&'));
        rest.remove_prefix(std::min(rest.size(), part.size() + 1));
        const auto equals = part.find('=');
        if (equals == std::string_view::npos || equals == 0)
            throw ContractError("parameter '" + std::string(part) + "' is not key=value",
                                "'" + text + "'", "Write ?key=value&key=value");
        if (!uri.parameters.emplace(part.substr(0, equals), part.substr(equals + 1)).second)
            throw ContractError(
                "parameter '" + std::string(part.substr(0, equals)) + "' occurs twice",
                "'" + text + "'", "Give it once");
    }
    if (uri.path.empty())
        throw ContractError("no directory", "'" + text + "'",
                            "Use file:DIR or disagg:DIR?store_id=NAME");
    return uri;
}

namespace detail {
/// Whether two paths are the same name in the same directory, by whatever links or mounts they go.
inline bool same_place(const std::filesystem::path& a, const std::filesystem::path& b) {
    std::error_code error;  // there is no such directory: not the same
    return a == b || (a.filename() == b.filename() &&
                      std::filesystem::equivalent(a.parent_path(), b.parent_path(), error));
}
}  // namespace detail

}  // namespace eyas
