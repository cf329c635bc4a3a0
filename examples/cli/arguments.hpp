#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "eyas/core/json.hpp"

namespace eyas::cli {

namespace detail {
/// {"max-steps": 5, "skip-bad": true, "layers": [1, 2]} as command-line words; underscores in keys
/// count as dashes. False and null leave the option out.
inline void append_option(std::vector<std::string>& words, std::string key, const Json& value,
                          const std::string& file) {
    const auto text = [](const Json& v) { return v.is_string() ? v.get<std::string>() : v.dump(); };
    if (value.is_null() || value == false) return;
    words.push_back(key);
    if (value == true) return;
    if (value.is_object())
        throw DataError("option " + key + " is an object", file,
                        "Use a string, number, true/false or list");
    if (!value.is_array()) return words.push_back(text(value));
    std::string list;
    for (const auto& v : value) list += (list.empty() ? "" : ",") + text(v);
    words.push_back(list);
}
}  // namespace detail

/// Puts the options of a `--config FILE` right after the sub-command's name, except those that the
/// command line gives itself. Throws DataError for a file that is not a JSON object of options.
inline std::vector<std::string> with_config_file(std::vector<std::string> words) {
    std::string file;
    for (std::size_t i = 0; i < words.size(); ++i) {
        if (words[i] == "--config" && i + 1 < words.size()) file = words[i + 1];
        if (words[i].starts_with("--config=")) file = words[i].substr(9);
    }
    if (file.empty() || words.empty()) return words;
    const auto options = read_json_file(file);
    if (!options.is_object())
        throw DataError("not a JSON object", file, "Write {\"option\": value, ...}");
    std::vector<std::string> extra;
    for (const auto& [name, value] : options.items()) {
        auto key = "--" + name;
        std::ranges::replace(key, '_', '-');
        const bool given = std::ranges::any_of(
            words, [&](const std::string& w) { return w == key || w.starts_with(key + "="); });
        if (!given) detail::append_option(extra, key, value, file);
    }
    words.insert(words.begin() + 1, extra.begin(), extra.end());
    return words;
}

}  // namespace eyas::cli
