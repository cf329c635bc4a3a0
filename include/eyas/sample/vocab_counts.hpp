#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "eyas/core/error.hpp"

namespace eyas {

/// How often each target token is supervised, in the order in which tokens were first counted (ties
/// between equally frequent tokens are broken by that order). Counting as the reference does
/// (SpecForge training/vocab_mapping.py): sample by sample, within one sample ascending id.
/// One thread at a time.
class TokenCounts {
public:
    struct Entry {
        std::int64_t token;
        std::int64_t count;
    };

    /// Adds one sample: input_ids [T], loss_mask [T], both cut to max_length. Rows with a non-zero
    /// mask count. Throws DataError, and counts nothing of the sample, when the lengths differ or a
    /// supervised id lies outside [0, vocab_size) (vocab_size 0: no upper bound).
    void add(std::span<const std::int64_t> input_ids, std::span<const std::int64_t> loss_mask,
             const std::string& where, std::int64_t vocab_size = 0,
             std::size_t max_length = std::numeric_limits<std::size_t>::max()) {
        if (input_ids.size() != loss_mask.size())
            throw DataError(std::to_string(input_ids.size()) + " input ids but " +
                                std::to_string(loss_mask.size()) + " loss-mask entries",
                            where, "Write the feature file again");
        supervised_.clear();
        for (std::size_t i = 0; i < std::min(input_ids.size(), max_length); ++i)
            if (loss_mask[i] != 0) supervised_.push_back(input_ids[i]);
        std::ranges::sort(supervised_);
        if (!supervised_.empty() &&
            (supervised_.front() < 0 || (vocab_size > 0 && supervised_.back() >= vocab_size)))
            throw DataError(
                "token id " +
                    std::to_string(supervised_.front() < 0 ? supervised_.front()
                                                           : supervised_.back()) +
                    " outside the target vocabulary" +
                    (vocab_size > 0 ? " of " + std::to_string(vocab_size) : std::string()),
                where, "Capture with the tokenizer of this target model");
        for (const auto token : supervised_) {
            const auto [it, fresh] = index_.try_emplace(token, entries_.size());
            if (fresh) entries_.push_back({token, 0});
            ++entries_[it->second].count;
            ++total_;
        }
    }

    std::span<const Entry> entries() const { return entries_; }  // in order of first occurrence
    bool contains(std::int64_t token) const { return index_.contains(token); }
    std::int64_t total() const { return total_; }  // supervised tokens counted

private:
    std::vector<Entry> entries_;
    std::unordered_map<std::int64_t, std::size_t> index_;  // token -> position in entries_
    std::vector<std::int64_t> supervised_;                 // scratch
    std::int64_t total_ = 0;
};

}  // namespace eyas
