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
    /// All counts in one row, of `depth` levels, for a reduction over ranks; unpack() is the
    /// inverse.
    std::vector<double> packed(std::size_t depth) const {
        std::vector<double> all{static_cast<double>(passes), static_cast<double>(tokens)};
        for (const auto* v : {&proposed, &accepted})
            for (std::size_t i = 0; i < depth; ++i)
                all.push_back(i < v->size() ? static_cast<double>((*v)[i]) : 0.0);
        return all;
    }
    void unpack(const std::vector<double>& all) {
        const auto depth = (all.size() - 2) / 2;
        const auto at = [&](std::size_t i) { return static_cast<std::int64_t>(all[i]); };
        passes = at(0), tokens = at(1);
        proposed.resize(depth), accepted.resize(depth);
        for (std::size_t i = 0; i < depth; ++i)
            proposed[i] = at(2 + i), accepted[i] = at(2 + depth + i);
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
