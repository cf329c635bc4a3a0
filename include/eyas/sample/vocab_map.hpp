#pragma once
#include <cstdint>
#include <vector>

namespace eyas {

/// The draft vocabulary's place in the target vocabulary. Draft id d stands for target id d +
/// d2t[d]; t2d[v] says whether target id v has a draft id. Draft ids ascend with target ids.
struct VocabMap {
    std::vector<std::int64_t> d2t;  // [W], offsets
    std::vector<std::uint8_t> t2d;  // [V], 0 or 1

    std::int64_t draft_vocab_size() const { return static_cast<std::int64_t>(d2t.size()); }
    std::int64_t vocab_size() const { return static_cast<std::int64_t>(t2d.size()); }
    std::int64_t target_id(std::int64_t draft_id) const {
        return draft_id + d2t[static_cast<std::size_t>(draft_id)];
    }
};

}  // namespace eyas
