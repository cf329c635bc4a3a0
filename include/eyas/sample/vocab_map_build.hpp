#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/sample/vocab_counts.hpp"
#include "eyas/sample/vocab_map.hpp"

namespace eyas {

namespace detail {

inline void check_vocab_sizes(std::int64_t vocab_size, std::int64_t draft_vocab_size,
                              const std::string& where) {
    constexpr std::int64_t most = std::int64_t{1} << 31;
    if (vocab_size < 1 || vocab_size > most || draft_vocab_size < 1 ||
        draft_vocab_size > vocab_size)
        throw ContractError("a draft vocabulary of " + std::to_string(draft_vocab_size) +
                                " for a target vocabulary of " + std::to_string(vocab_size),
                            where, "Use 1 <= draft_vocab_size <= vocab_size");
}

inline VocabMap map_of_sorted_ids(const std::vector<std::int64_t>& ids, std::int64_t vocab_size) {
    VocabMap map;
    map.t2d.assign(static_cast<std::size_t>(vocab_size), 0);
    for (std::size_t d = 0; d < ids.size(); ++d) {
        map.d2t.push_back(ids[d] - static_cast<std::int64_t>(d));
        map.t2d[static_cast<std::size_t>(ids[d])] = 1;
    }
    return map;
}

}  // namespace detail

/// The W most frequent supervised tokens, the one counted first before the others that are as
/// frequent; where fewer than W were seen, the smallest unseen ids of [0, W) fill up. Equal to
/// SpecForge's process_token_dict_to_mappings (data/preprocessing.py). Throws ContractError for
/// sizes that make no map and DataError for a counted id outside [0, V).
inline VocabMap build_vocab_map(const TokenCounts& counts, std::int64_t vocab_size,
                                std::int64_t draft_vocab_size) {
    detail::check_vocab_sizes(vocab_size, draft_vocab_size, "build_vocab_map");
    std::vector<TokenCounts::Entry> ranked(counts.entries().begin(), counts.entries().end());
    for (const auto& e : ranked)
        if (e.token < 0 || e.token >= vocab_size)
            throw DataError("counted token id " + std::to_string(e.token) +
                                " outside the target vocabulary of " + std::to_string(vocab_size),
                            "build_vocab_map", "Use the vocab_size of the target model");
    const auto width = static_cast<std::size_t>(draft_vocab_size);
    for (std::int64_t id = 0; ranked.size() < width; ++id)
        if (!counts.contains(id)) ranked.push_back({id, 0});
    std::ranges::stable_sort(ranked,
                             [](const auto& a, const auto& b) { return a.count > b.count; });
    std::vector<std::int64_t> ids;
    for (std::size_t i = 0; i < width; ++i) ids.push_back(ranked[i].token);
    std::ranges::sort(ids);
    return detail::map_of_sorted_ids(ids, vocab_size);
}

/// The draft speaks the whole target vocabulary: W = V.
inline VocabMap identity_vocab_map(std::int64_t vocab_size) {
    detail::check_vocab_sizes(vocab_size, vocab_size, "identity_vocab_map");
    VocabMap map;
    map.d2t.assign(static_cast<std::size_t>(vocab_size), 0);
    map.t2d.assign(static_cast<std::size_t>(vocab_size), 1);
    return map;
}

/// Share of the counted (supervised) tokens that have a draft id; 0 where nothing was counted.
inline double coverage(const VocabMap& map, const TokenCounts& counts) {
    std::int64_t covered = 0;
    for (const auto& e : counts.entries())
        if (e.token >= 0 && e.token < map.vocab_size() &&
            map.t2d[static_cast<std::size_t>(e.token)])
            covered += e.count;
    return counts.total() > 0 ? static_cast<double>(covered) / static_cast<double>(counts.total())
                              : 0;
}

/// Throws DataError unless the map fits a draft head of W rows over a target vocabulary of V and
/// both halves tell the same: the ids that t2d selects, ascending, are d + d2t[d].
inline void check_vocab_map(const VocabMap& map, std::int64_t vocab_size,
                            std::int64_t draft_vocab_size, const std::string& where) {
    const std::string rebuild = "Build the map again with these sizes (eyas vocab-map)";
    if (map.draft_vocab_size() != draft_vocab_size)
        throw DataError("d2t has " + std::to_string(map.draft_vocab_size()) +
                            " entries, the draft head has draft_vocab_size " +
                            std::to_string(draft_vocab_size),
                        where, rebuild);
    if (map.vocab_size() != vocab_size)
        throw DataError("t2d has " + std::to_string(map.vocab_size()) +
                            " entries, the target has vocab_size " + std::to_string(vocab_size),
                        where, rebuild);
    std::int64_t draft_id = 0;
    for (std::int64_t id = 0; id < vocab_size; ++id) {
        if (!map.t2d[static_cast<std::size_t>(id)]) continue;
        if (draft_id >= draft_vocab_size ||
            map.d2t[static_cast<std::size_t>(draft_id)] != id - draft_id)
            throw DataError("d2t and t2d disagree at draft id " + std::to_string(draft_id) +
                                ": t2d selects target id " + std::to_string(id),
                            where, rebuild);
        ++draft_id;
    }
    if (draft_id != draft_vocab_size)
        throw DataError("t2d selects " + std::to_string(draft_id) + " tokens but d2t has " +
                            std::to_string(draft_vocab_size) + " entries",
                        where, rebuild);
}

}  // namespace eyas
