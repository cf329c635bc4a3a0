#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace eyas {

/// What drafts were good for: counts over rounds, each one pass of the target.
struct Acceptance {
    std::int64_t passes = 0;             // target passes that verified a draft
    std::int64_t tokens = 0;             // that these passes yielded, the target's own included
    std::vector<std::int64_t> proposed;  // [depth] passes that came to this depth, all tokens
                                         // before accepted, and judged a draft token there
    std::vector<std::int64_t> accepted;  // [depth] passes that accepted it

    /// Acceptance length: tokens a target pass. 1 is what decoding without a draft has.
    double length() const {
        return passes > 0 ? static_cast<double>(tokens) / static_cast<double>(passes) : 0;
    }
    /// Share of passes that accepted a token at this depth, of those that came so far and had one;
    /// 0 where none did.
    double rate(std::size_t depth) const {
        if (depth >= proposed.size() || proposed[depth] == 0) return 0;
        return static_cast<double>(accepted[depth]) / static_cast<double>(proposed[depth]);
    }

    /// A pass that accepted `taken` draft tokens and judged `levels` of them: one more than it
    /// accepted, unless the draft had none after these or the text ended with them.
    void add_pass(std::int64_t levels, std::int64_t taken, std::int64_t yielded) {
        const auto most = static_cast<std::size_t>(levels);
        if (proposed.size() < most) proposed.resize(most), accepted.resize(most);
        for (std::size_t i = 0; i < most; ++i) {
            if (static_cast<std::int64_t>(i) <= taken) ++proposed[i];
            if (static_cast<std::int64_t>(i) < taken) ++accepted[i];
        }
        ++passes;
        tokens += yielded;
    }
    void add(const Acceptance& other) {
        passes += other.passes, tokens += other.tokens;
        proposed.resize(std::max(proposed.size(), other.proposed.size()));
        accepted.resize(proposed.size());
        for (std::size_t i = 0; i < other.proposed.size(); ++i)
            proposed[i] += other.proposed[i], accepted[i] += other.accepted[i];
    }
};

}  // namespace eyas
