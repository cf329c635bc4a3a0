#pragma once
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eyas/capture/conversations.hpp"

namespace eyas {

/// What a rollout answers.
struct Prompt {
    std::string id;
    std::vector<std::int64_t> input_ids;
};

namespace detail {

inline constexpr std::int64_t most_prompts = std::int64_t{1} << 24;
/// Tokens of what repeats add, 2 GiB of them: a short file must not fill the memory. What is
/// repeated is short, as the head of a template, and the file's own tokens are not counted.
inline constexpr std::int64_t most_repeated_tokens = std::int64_t{1} << 28;

/// The id of a line, a text or an integer; the line's number among the prompts where it has none.
inline std::string prompt_id(const Json& json, std::int64_t number, const std::string& where) {
    if (!json.contains("id")) return std::to_string(number);
    const auto& id = json.at("id");
    if (id.is_string()) return id.get<std::string>();
    if (id.is_number_integer()) return id.dump();
    throw DataError("id is " + id.dump(), where, "Use a text or an integer");
}

}  // namespace detail

/// Reads JSON lines {"input_ids": [...], "id": "...", "repeat": n}, other keys ignored, blank lines
/// too. A line with repeat becomes n prompts, ids ID.0 to ID.n-1. All of the file is checked before
/// anything is returned. Throws DataError that names file, line and key.
inline std::vector<Prompt> read_prompts(const std::filesystem::path& path,
                                        std::int64_t vocab_size) {
    std::vector<Prompt> out;
    std::int64_t lines = 0, repeated_tokens = 0;
    detail::for_each_line(path, [&](std::string_view line, const std::string& where) {
        const auto json = parse_json(line, where);
        Conversation c{detail::integer_array(json, "input_ids", where), {}};
        c.loss_mask.assign(c.input_ids.size(), 0);
        detail::check_conversation(c, {.vocab_size = vocab_size}, where);
        const auto id = detail::prompt_id(json, lines++, where);
        const auto repeat = optional<std::int64_t>(json, "repeat", 0, where);
        if ((json.contains("repeat") && repeat < 1) ||
            repeat > detail::most_prompts - std::ssize(out) ||
            std::ssize(out) >= detail::most_prompts)
            throw DataError("repeat is " + std::to_string(repeat), where,
                            "Use 1 and more, at most " + std::to_string(detail::most_prompts) +
                                " prompts in all");
        const auto tokens = std::ssize(c.input_ids), copies = std::max<std::int64_t>(repeat, 1) - 1;
        if (copies > (detail::most_repeated_tokens - repeated_tokens) / tokens)
            throw DataError(
                "repeat is " + std::to_string(repeat) + " of " + std::to_string(tokens) + " tokens",
                where,
                "Repeat less: at most " + std::to_string(detail::most_repeated_tokens) +
                    " tokens in all");
        repeated_tokens += copies * tokens;
        if (repeat == 0) out.push_back({id, std::move(c.input_ids)});
        for (std::int64_t r = 0; r < repeat; ++r)
            out.push_back({id + "." + std::to_string(r), c.input_ids});
    });
    if (out.empty())
        throw DataError("no prompt", path.string(),
                        "Write one JSON object per line with input_ids");
    return out;
}

/// Tokens that end an answer: eos_token_id of generation_config.json, else of config.json; a number
/// or a list. Empty where neither names one. Throws DataError for what is no list of ids.
inline std::vector<std::int64_t> default_stop_ids(const std::filesystem::path& model_dir) {
    for (const char* name : {"generation_config.json", "config.json"}) {
        const auto file = model_dir / name;
        if (!std::filesystem::exists(file)) continue;
        auto json = read_json_file(file);
        if (!json.is_object() || !json.contains("eos_token_id") || json["eos_token_id"].is_null())
            continue;
        if (!json["eos_token_id"].is_array())
            json["eos_token_id"] = Json::array({json["eos_token_id"]});
        return detail::integer_array(json, "eos_token_id", file.string());
    }
    return {};
}

}  // namespace eyas
