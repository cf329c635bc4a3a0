#pragma once
#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "eyas/core/error.hpp"
#include "eyas/core/file.hpp"

namespace eyas {

using Json = nlohmann::json;
/// Keeps the order of keys: for files whose readers compare text.
using OrderedJson = nlohmann::ordered_json;

namespace detail {
/// Refuses brackets nested deeper than any file of ours: printing a value recurses, and a hostile
/// file must not choose how deep.
inline void check_json_depth(std::string_view text, const std::string& where) {
    constexpr int deepest = 64;
    int depth = 0;
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (quoted) {
            if (c == '\\') ++i;
            if (c == '"') quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            if (++depth > deepest)
                throw DataError("JSON nested deeper than " + std::to_string(deepest) +
                                    " levels, at byte " + std::to_string(i),
                                where, "Write the file again");
        } else if (c == ']' || c == '}') {
            --depth;
        }
    }
}

/// Whether a number is one of T's: JSON's have any size and fractions, and converting one that does
/// not fit is undefined. True for what is no number, which the conversion itself refuses.
template <class T, class J>
bool fits(const J& value) {
    if constexpr (std::integral<T> && !std::same_as<T, bool>) {
        if (value.is_number_unsigned())
            return std::in_range<T>(value.template get<std::uint64_t>());
        if (value.is_number_integer()) return std::in_range<T>(value.template get<std::int64_t>());
        if (!value.is_number_float()) return true;
        const auto number = value.template get<double>();  // 1e3 is a whole number
        return std::abs(number) <= 0x1p53 && number == std::trunc(number) &&
               std::in_range<T>(static_cast<std::int64_t>(number));
    } else if constexpr (requires { typename T::value_type; } && !std::same_as<T, std::string> &&
                         !std::same_as<T, J>) {
        return !value.is_array() || std::ranges::all_of(value, [](const J& v) {
            return fits<typename T::value_type>(v);
        });
    }
    return true;
}
}  // namespace detail

/// Parses text; DataError with the position on bad JSON, or on more than 64 levels of nesting.
template <class J = Json>
J parse_json(std::string_view text, const std::string& where) {
    detail::check_json_depth(text, where);
    try {
        return J::parse(text);
    } catch (const nlohmann::json::exception& e) {
        throw DataError(std::string("not valid JSON: ") + e.what(), where, "Write the file again");
    }
}

template <class J = Json>
J read_json_file(const std::filesystem::path& path) {
    return parse_json<J>(read_text_file(path), path.string());
}

/// object[key] as T; DataError that names key and file when it is missing or of another type.
template <class T, class J>
T required(const J& object, const char* key, const std::string& where) {
    if (!object.is_object() || !object.contains(key))
        throw DataError(std::string("key '") + key + "' is missing", where,
                        "Write the file again with it");
    try {
        if (detail::fits<T>(object.at(key))) return object.at(key).template get<T>();
    } catch (const nlohmann::json::exception&) {
    }
    throw DataError(std::string("key '") + key + "' has the wrong type: " + object.at(key).dump(),
                    where, "Correct the value");
}

/// The same with a default for a missing key or a null.
template <class T, class J>
T optional(const J& object, const char* key, T fallback, const std::string& where) {
    if (!object.is_object() || !object.contains(key) || object.at(key).is_null()) return fallback;
    return required<T>(object, key, where);
}

}  // namespace eyas
