#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "eyas/capture/sampling.hpp"
#include "eyas/core/random.hpp"
#include "eyas/evaluate/draft_decoder.hpp"
#include "eyas/evaluate/draft_shape.hpp"

namespace eyas {

/// What a draft proposes after one sequence: nodes, parents before children.
struct DraftTree {
    std::vector<std::int64_t> tokens;              // target ids
    std::vector<std::int64_t> parents;             // -1: follows the sequence
    std::vector<std::int64_t> depth;               // 0: follows the sequence
    std::vector<double> log_probability;           // of the path, by the draft
    std::vector<TokenDistribution> distributions;  // sampled chains: what each was drawn from

    std::int64_t size() const { return std::ssize(tokens); }
    /// The child of node `parent` (-1: of the sequence) with this token, or -1.
    std::int64_t child(std::int64_t parent, std::int64_t token) const {
        for (auto i = static_cast<std::size_t>(parent + 1); i < tokens.size(); ++i)
            if (parents[i] == parent && tokens[i] == token) return static_cast<std::int64_t>(i);
        return -1;
    }
    /// Whether anything was proposed after node `parent` (-1: after the sequence).
    bool has_child(std::int64_t parent) const {
        return std::ranges::find(parents, parent) != parents.end();
    }
    /// Keeps nodes for which keep(i) holds; those of a kept node's path must be kept.
    template <class F>
    void keep(const F& kept) {
        std::vector<std::int64_t> place(tokens.size(), -1);
        std::size_t n = 0;
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            if (!kept(i)) continue;
            place[i] = static_cast<std::int64_t>(n);
            tokens[n] = tokens[i], depth[n] = depth[i], log_probability[n] = log_probability[i];
            parents[n] = parents[i] < 0 ? -1 : place[static_cast<std::size_t>(parents[i])];
            if (i < distributions.size() && i != n) distributions[n] = std::move(distributions[i]);
            ++n;
        }
        tokens.resize(n), parents.resize(n), depth.resize(n), log_probability.resize(n);
        distributions.resize(std::min(distributions.size(), n));
    }
};

/// A sequence that a draft goes on from.
struct DraftRoot {
    KvCache::Sequence* sequence = nullptr;  // in the draft's cache; its tree rows are overwritten
    const float* state = nullptr;           // [D] the draft's state of its last row
    std::uint64_t id = 0;                   // for keyed_uniform
    std::int64_t position = 0;              // of the first proposed token
    std::int64_t levels = std::numeric_limits<std::int64_t>::max();  // no deeper tree than this
};

/// Grows the trees of several sequences, depth by depth; each depth is one forward of the draft
/// over all of them. Borrows draft and cache. One thread drives it.
template <Device D>
class DraftTrees {
public:
    /// `sampled`: chains are drawn from the draft's distribution, which rejection sampling asks
    /// for, instead of its most probable tokens. Throws what DraftShape::check() throws, and
    /// ContractError for a sampled tree.
    DraftTrees(DraftDecoder<D>& draft, KvCache& cache, DraftShape shape,
               const SamplingOptions* sampled = nullptr)
        : draft_(draft), cache_(cache), shape_(std::move(shape)) {
        shape_.check();
        if (!sampled) return;
        if (!shape_.is_chain())
            throw ContractError("a sampled draft is a tree", "DraftTrees",
                                "Sample chains, or verify a tree of the most probable tokens");
        sampled_ = *sampled;
        samples_ = true;
    }

    /// Good until the next call. Throws DataError where a logit of the draft is no number.
    std::span<DraftTree> grow(std::span<const DraftRoot> roots) {
        begin(roots);
        for (std::size_t level = 0; level < shape_.widths.size(); ++level) {
            if (level > 0) expand(roots, level);
            if (states_.empty()) break;
            propose(roots, level);
        }
        if (shape_.total > 0)
            for (auto& g : grown_) cut_to_total(g.tree);
        trees_.clear();
        for (auto& g : grown_) trees_.push_back(std::move(g.tree));
        return trees_;
    }

private:
    /// A tree under way. The draft's rows of it are the nodes that were expanded.
    struct Growing {
        DraftTree tree;
        std::vector<std::int64_t> row;          // of node i among the rows, -1: not expanded
        std::vector<std::int64_t> row_parents;  // of rows, as NewRows wants them
        std::vector<std::int64_t> frontier;     // nodes to be expanded next; -1: the sequence
        std::int64_t frontier_row = 0;          // row of the first node of the frontier
        std::int64_t level_begin = 0;           // first node of the deepest level
    };

    /// Logits of one row, none of them NaN or +infinity.
    struct Scores {
        std::span<const float> logits;
        std::int64_t first;  // the most probable
        double log_sum;      // logits minus this are log probabilities
    };

    void begin(std::span<const DraftRoot> roots) {
        const auto d = static_cast<std::size_t>(draft_.config().hidden_size);
        grown_.assign(roots.size(), {});
        states_.clear();
        for (std::size_t s = 0; s < roots.size(); ++s) {
            if (roots[s].levels <= 0) continue;
            grown_[s].frontier.push_back(-1);
            states_.insert(states_.end(), roots[s].state, roots[s].state + d);
        }
    }

    /// Chooses which nodes of the deepest level are expanded and runs the draft on them: states_
    /// becomes theirs, in the order of the frontiers.
    void expand(std::span<const DraftRoot> roots, std::size_t level) {
        const auto d = draft_.config().hidden_size;
        std::vector<std::int64_t> ids;
        std::vector<float> inputs;
        std::vector<NewRows> rows;
        std::int64_t proposer = 0;  // row of states_ that proposed a node
        for (std::size_t s = 0; s < roots.size(); ++s) {
            auto& g = grown_[s];
            auto& t = g.tree;
            const bool ends = static_cast<std::int64_t>(level) >= roots[s].levels;
            const auto before =
                std::exchange(g.frontier, ends ? std::vector<std::int64_t>{} : chosen(g));
            const auto behind = std::ssize(g.row_parents);
            const auto before_row = std::exchange(g.frontier_row, behind);
            for (auto node : g.frontier) {
                const auto i = static_cast<std::size_t>(node);
                const auto parent = t.parents[i];
                const auto from =
                    parent < 0 ? 0 : g.row[static_cast<std::size_t>(parent)] - before_row;
                const float* state = states_.data() + (proposer + from) * d;
                inputs.insert(inputs.end(), state, state + d);
                ids.push_back(t.tokens[i]);
                g.row[i] = std::ssize(g.row_parents);
                g.row_parents.push_back(parent < 0 ? -1 : g.row[static_cast<std::size_t>(parent)]);
            }
            proposer += std::ssize(before);
            rows.push_back({roots[s].sequence, std::ssize(g.frontier), {}, behind});
        }
        for (std::size_t s = 0; s < roots.size(); ++s) rows[s].parents = grown_[s].row_parents;
        if (!ids.empty()) draft_.forward(inputs.data(), ids, rows, cache_, inputs.data());
        states_ = std::move(inputs);
    }

    /// All of the deepest level, or the `beam` most probable; none that the draft is not sure of.
    std::vector<std::int64_t> chosen(const Growing& g) const {
        std::vector<std::int64_t> all(static_cast<std::size_t>(g.tree.size() - g.level_begin));
        std::iota(all.begin(), all.end(), g.level_begin);
        if (shape_.confidence > 0)
            std::erase_if(all, [&, least = std::log(shape_.confidence)](std::int64_t i) {
                return g.tree.log_probability[static_cast<std::size_t>(i)] < least;
            });
        if (shape_.beam == 0 || std::ssize(all) <= shape_.beam) return all;
        std::ranges::stable_sort(all, std::ranges::greater{}, [&](std::int64_t i) {
            return g.tree.log_probability[static_cast<std::size_t>(i)];
        });
        all.resize(static_cast<std::size_t>(shape_.beam));
        std::ranges::sort(all);
        return all;
    }

    /// Adds the children of all frontiers.
    void propose(std::span<const DraftRoot> roots, std::size_t level) {
        const auto d = draft_.config().hidden_size, w = draft_.config().draft_vocab_size;
        const auto n = std::ssize(states_) / d;
        logits_.resize(static_cast<std::size_t>(n * w));
        draft_.logits(states_.data(), n, logits_.data());
        std::int64_t row = 0;
        for (std::size_t s = 0; s < roots.size(); ++s) {
            auto& g = grown_[s];
            g.level_begin = g.tree.size();
            for (auto node : g.frontier) {
                const auto scores =
                    checked({logits_.data() + w * row++, static_cast<std::size_t>(w)});
                if (samples_)
                    add_sampled(g, node, scores.logits, roots[s]);
                else
                    add_most_probable(g, node, scores, shape_.widths[level]);
            }
        }
    }

    static Scores checked(std::span<const float> z) {
        constexpr const char* where = "DraftTrees: the draft";
        const auto first = checked_most_probable(z, where);
        const double top = z[static_cast<std::size_t>(first)];
        double sum = 0;
        for (float v : z) sum += exp_fast(static_cast<float>(v - top));
        const double log_sum = top + std::log(sum);
        if (!std::isfinite(log_sum))
            throw DataError("a logit is no number", where, "Check the weights of the draft");
        return {z, first, log_sum};
    }

    void add(Growing& g, std::int64_t parent, std::int64_t token, double log_probability) {
        auto& t = g.tree;
        const auto p = static_cast<std::size_t>(parent);
        t.depth.push_back(parent < 0 ? 0 : t.depth[p] + 1);
        t.log_probability.push_back(log_probability + (parent < 0 ? 0 : t.log_probability[p]));
        t.tokens.push_back(token);
        t.parents.push_back(parent);
        g.row.push_back(-1);
    }

    void add_most_probable(Growing& g, std::int64_t parent, const Scores& scores, std::int64_t k) {
        const auto z = scores.logits;
        const auto child = [&](std::int64_t id) {
            add(g, parent, draft_.vocab_map().target_id(id),
                z[static_cast<std::size_t>(id)] - scores.log_sum);
        };
        if (k == 1) return child(scores.first);
        order_.resize(z.size());
        std::iota(order_.begin(), order_.end(), std::int64_t{0});
        k = std::min(k, std::ssize(z));
        std::partial_sort(
            order_.begin(), order_.begin() + k, order_.end(), [&](std::int64_t a, std::int64_t b) {
                const auto x = z[static_cast<std::size_t>(a)], y = z[static_cast<std::size_t>(b)];
                return x > y || (x == y && a < b);
            });
        for (std::int64_t i = 0; i < k; ++i) child(order_[static_cast<std::size_t>(i)]);
    }

    void add_sampled(Growing& g, std::int64_t parent, std::span<const float> z,
                     const DraftRoot& root) {
        const auto& map = draft_.vocab_map();
        wide_.assign(static_cast<std::size_t>(map.vocab_size()),
                     -std::numeric_limits<float>::infinity());
        for (std::size_t i = 0; i < z.size(); ++i)
            wide_[static_cast<std::size_t>(map.target_id(static_cast<std::int64_t>(i)))] = z[i];
        TokenDistribution q;
        q.assign(wide_, sampled_);
        const auto position = root.position + (parent < 0 ? 0 : parent + 1);
        const auto token =
            q.draw(keyed_uniform(sampled_.seed, root.id, static_cast<std::uint64_t>(position), 1));
        add(g, parent, token, std::log(q[token]));
        g.tree.distributions.push_back(std::move(q));
    }

    void cut_to_total(DraftTree& t) {
        if (t.size() <= shape_.total) return;
        order_.resize(static_cast<std::size_t>(t.size()));
        std::iota(order_.begin(), order_.end(), std::int64_t{0});
        std::ranges::stable_sort(order_, std::ranges::greater{}, [&](std::int64_t i) {
            return t.log_probability[static_cast<std::size_t>(i)];
        });  // a parent is never less probable than its child, and comes first among equals
        std::vector<char> kept(order_.size(), 0);
        for (std::int64_t i = 0; i < shape_.total; ++i)
            kept[static_cast<std::size_t>(order_[static_cast<std::size_t>(i)])] = 1;
        t.keep([&](std::size_t i) { return kept[i] != 0; });
    }

    DraftDecoder<D>& draft_;
    KvCache& cache_;
    DraftShape shape_;
    SamplingOptions sampled_;
    bool samples_ = false;
    std::vector<Growing> grown_;
    std::vector<DraftTree> trees_;
    std::vector<float> states_;  // [frontier nodes of all, D]
    std::vector<float> logits_, wide_;
    std::vector<std::int64_t> order_;
};

}  // namespace eyas
