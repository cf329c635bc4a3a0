#pragma once
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "eyas/core/file.hpp"
#include "eyas/core/json.hpp"

namespace eyas {

/// One tokenised conversation.
struct Conversation {
    std::vector<std::int64_t> input_ids;  // [T]
    std::vector<std::int64_t> loss_mask;  // [T], 1 on tokens that are supervised, 0 elsewhere

    std::int64_t tokens() const { return static_cast<std::int64_t>(input_ids.size()); }
};

/// What every conversation must keep to.
struct ConversationLimits {
    std::int64_t max_len = std::numeric_limits<std::int64_t>::max();  // longer ones are cut to it
    std::int64_t vocab_size = std::numeric_limits<std::int64_t>::max();  // ids must be below it
    std::int64_t positions = std::numeric_limits<std::int64_t>::max();   // longest after the cut
};

namespace detail {

inline void check_conversation(const Conversation& c, const ConversationLimits& limits,
                               const std::string& where) {
    if (c.input_ids.empty()) throw DataError("input_ids is empty", where, "Remove the line");
    if (c.input_ids.size() != c.loss_mask.size())
        throw DataError(std::to_string(c.input_ids.size()) + " input_ids but " +
                            std::to_string(c.loss_mask.size()) + " loss_mask entries",
                        where, "Give one mask entry per token");
    for (auto id : c.input_ids)
        if (id < 0 || id >= limits.vocab_size)
            throw DataError("input_ids holds " + std::to_string(id), where,
                            "Tokenise with the target's tokenizer; its ids are 0 to " +
                                std::to_string(limits.vocab_size - 1));
    for (auto m : c.loss_mask)
        if (m != 0 && m != 1)
            throw DataError("loss_mask holds " + std::to_string(m), where,
                            "Mark supervised tokens with 1 and others with 0");
    if (c.tokens() > limits.positions)
        throw DataError(
            "a conversation of " + std::to_string(c.tokens()) + " tokens", where,
            "Cut it to the model's " + std::to_string(limits.positions) + " positions (--max-len)");
}

// A fraction would otherwise be cut off silently. Beyond 63 bits a value wraps to a negative one,
// which no caller takes.
inline std::vector<std::int64_t> integer_array(const Json& object, const char* key,
                                               const std::string& where) {
    const auto array = required<Json::array_t>(object, key, where);
    std::vector<std::int64_t> out;
    out.reserve(array.size());
    for (const auto& v : array) {
        if (!v.is_number_integer())
            throw DataError(std::string(key) + " holds " + v.dump(), where, "Write integers only");
        out.push_back(v.get<std::int64_t>());
    }
    return out;
}

inline Conversation parse_conversation(std::string_view line, const ConversationLimits& limits,
                                       const std::string& where) {
    const auto json = parse_json(line, where);
    Conversation c{integer_array(json, "input_ids", where),
                   integer_array(json, "loss_mask", where)};
    if (c.input_ids.size() == c.loss_mask.size() && c.tokens() > limits.max_len) {
        c.input_ids.resize(static_cast<std::size_t>(limits.max_len));
        c.loss_mask.resize(static_cast<std::size_t>(limits.max_len));
    }
    check_conversation(c, limits, where);
    return c;
}

/// f(line, where) for each line that is not blank; `where` names file and line.
template <class F>
void for_each_line(const std::filesystem::path& path, F&& f) {
    const MappedFile file(path);
    std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    for (std::int64_t number = 1; !rest.empty(); ++number) {
        const auto end = rest.find('\n');
        const auto line = rest.substr(0, end);
        rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
        if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
        f(line, path.string() + " line " + std::to_string(number));
    }
}

}  // namespace detail

/// Reads JSON lines {"input_ids": [...], "loss_mask": [...]}, other keys ignored, blank lines too.
/// All of the file is checked before anything is returned. Throws DataError that names file, line
/// and key: bad JSON, missing keys, lengths that differ, ids or masks out of range, no conversation
/// at all; ContractError for a max_len below 1.
inline std::vector<Conversation> read_conversations(const std::filesystem::path& path,
                                                    const ConversationLimits& limits = {}) {
    if (limits.max_len < 1)
        throw ContractError("max_len is " + std::to_string(limits.max_len), "read_conversations",
                            "Give a positive length");
    std::vector<Conversation> out;
    detail::for_each_line(path, [&](std::string_view line, const std::string& where) {
        out.push_back(detail::parse_conversation(line, limits, where));
    });
    if (out.empty())
        throw DataError("no conversation", path.string(),
                        "Write one JSON object per line with input_ids and loss_mask");
    return out;
}

}  // namespace eyas
