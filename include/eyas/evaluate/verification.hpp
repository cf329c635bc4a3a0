#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "eyas/capture/sampling.hpp"
#include "eyas/core/random.hpp"
#include "eyas/evaluate/draft_tree.hpp"

namespace eyas {

/// How a draft is judged.
enum class Verification {
    /// The target chooses each token as it would alone, with the same random numbers; a draft token
    /// is accepted where it is the chosen one. The text is token for token the target's own.
    Match,
    /// A draft token x that was drawn from q is accepted with probability min(1, p(x)/q(x)), else
    /// one is drawn from what remains of p (arXiv 2211.17192). Texts are distributed as the
    /// target's own; what is accepted more often depends on the two models. Chains only.
    Rejection,
};

/// What came of a round: the accepted nodes of the tree, and the token that the target adds.
struct Verdict {
    std::vector<std::int64_t> path;
    std::int64_t next = 0;
};

/// The target's tokens against a tree. chosen(i) of row i, 0 the sequence's and i + 1 that of node
/// i, is asked for along the accepted path only.
template <class Chosen>
Verdict match(const DraftTree& tree, const Chosen& chosen) {
    Verdict v;
    v.next = chosen(std::int64_t{0});
    for (std::int64_t at = -1; (at = tree.child(at, v.next)) >= 0;) {
        v.path.push_back(at);
        v.next = chosen(at + 1);
    }
    return v;
}

/// Rejection sampling of a chain. logits(i) [V] of row i are asked for in ascending order, only as
/// far as it comes. `position` is that of the first draft token, in sequence `id`.
template <class Logits>
Verdict reject(const DraftTree& chain, const Logits& logits, const SamplingOptions& options,
               std::uint64_t id, std::int64_t position) {
    Verdict v;
    TokenDistribution p;
    const auto uniform = [&](std::int64_t i, std::uint64_t purpose) {
        return keyed_uniform(options.seed, id, static_cast<std::uint64_t>(position + i), purpose);
    };
    for (std::int64_t i = 0; i < chain.size(); ++i) {
        const auto n = static_cast<std::size_t>(i);
        const auto& q = chain.distributions[n];
        const auto token = chain.tokens[n];
        p.assign(logits(i), options);
        if (uniform(i, 2) * q[token] >= p[token]) {
            p.subtract(q);
            v.next = p.draw(uniform(i, 3));
            return v;
        }
        v.path.push_back(i);
    }
    p.assign(logits(chain.size()), options);
    v.next = p.draw(uniform(chain.size(), 0));
    return v;
}

}  // namespace eyas
