#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eyas/capture/kv_cache.hpp"
#include "eyas/core/error.hpp"

namespace eyas {

/// New tokens of one sequence in a forward: a chain that follows what the sequence holds, or rows
/// of a draft tree. A tree may grow by several forwards: `behind` of its rows were stored by
/// earlier ones. parents[i] is the tree's row before row i on its way from the root (an index below
/// i), -1 for a row that follows the sequence itself.
struct NewRows {
    KvCache::Sequence* sequence = nullptr;  // borrowed until the forward returns
    std::int64_t rows = 0;
    std::span<const std::int64_t> parents = {};  // [behind + rows]; empty: a chain
    std::int64_t behind = 0;
};

/// What the rows of one forward see: their positions, and attention layer by layer. Keys and values
/// of row r of a sequence are stored in slot length + behind + r. A chain's rows are part of the
/// sequence after commit(); of a tree the caller keeps what was accepted (KvCache::keep).
class RowPlan {
public:
    /// Reserves the rows' slots. Throws ContractError for a tree whose parents do not come before
    /// their rows; ResourceError where the cache has too few pages left (nothing is reserved then
    /// for this sequence and those after it).
    RowPlan(KvCache& cache, std::span<const NewRows> sequences) : cache_(cache) {
        for (const auto& s : sequences) add(s);
    }

    std::int64_t rows() const { return std::ssize(positions_); }
    std::span<const std::int64_t> positions() const { return positions_; }

    /// Stores keys and values of the rows of qkv [N, (H+2G)E] and writes the attention's result to
    /// context [N, H*E].
    template <Device D>
    void attend(const D& device, const HeadShape& shape, std::int64_t layer, const float* qkv,
                float* context) {
        const auto stride = shape.qkv_width();
        for (const auto& s : sequences_)
            for_each_light_row(device, s.rows.rows, 2 * shape.kv_width(), [&](std::int64_t r) {
                const float* key = qkv + (s.first + r) * stride + shape.q_width();
                cache_.store(*s.rows.sequence, layer, s.begin + r, key, key + shape.kv_width());
            });
        views_.clear();
        for (auto& s : sequences_) {
            s.blocks.clear();
            cache_.blocks(*s.rows.sequence, layer, s.begin + s.rows.rows, s.blocks);
            views_.push_back({qkv + s.first * stride, context + s.first * shape.q_width(), stride,
                              shape.q_width(), s.rows.rows, s.blocks, s.seen, s.extra,
                              s.extra_begin});
        }
        cached_attention(device, shape, std::span<const CachedRows>(views_));
    }

    /// Makes the rows of chains part of their sequences.
    void commit() {
        for (const auto& s : sequences_)
            if (s.rows.parents.empty()) cache_.append(*s.rows.sequence, s.rows.rows);
    }

private:
    struct Planned {
        NewRows rows;
        std::int64_t first;  // row of the forward
        std::int64_t begin;  // slot of the first row
        std::vector<std::int64_t> seen, extra, extra_begin;
        std::vector<const float*> blocks;
    };

    void add(const NewRows& s) {
        const auto length = s.sequence->length();
        const auto in_tree = s.behind + s.rows;
        if (!s.parents.empty() && std::ssize(s.parents) != in_tree)
            throw ContractError(std::to_string(s.parents.size()) + " parents for " +
                                    std::to_string(in_tree) + " rows",
                                "RowPlan", "Name one parent a row");
        if (!cache_.reserve(*s.sequence, length + in_tree))
            throw ResourceError("the KV cache has " + std::to_string(cache_.pages_left()) +
                                    " pages left, " + std::to_string(s.rows) + " tokens need more",
                                "RowPlan", "Give the cache more tokens, or decode fewer sequences");
        Planned p{s, rows(), length + s.behind, {}, {}, {}, {}};
        if (s.parents.empty())
            for (std::int64_t r = 0; r < s.rows; ++r) {
                positions_.push_back(length + r);
                p.seen.push_back(length + r + 1);
            }
        else
            add_tree(p, length);
        sequences_.push_back(std::move(p));
    }

    void add_tree(Planned& p, std::int64_t length) {
        p.seen.assign(static_cast<std::size_t>(p.rows.rows), length);
        p.extra_begin.push_back(0);
        for (std::int64_t i = p.rows.behind; i < p.rows.behind + p.rows.rows; ++i) {
            path_.clear();
            for (auto at = i; at >= 0; at = p.rows.parents[static_cast<std::size_t>(at)]) {
                path_.push_back(length + at);
                const auto parent = p.rows.parents[static_cast<std::size_t>(at)];
                if (parent < -1 || parent >= at)
                    throw ContractError(
                        "row " + std::to_string(at) + " has parent " + std::to_string(parent),
                        "RowPlan", "List parents before their children");
            }
            p.extra.insert(p.extra.end(), path_.rbegin(), path_.rend());
            p.extra_begin.push_back(std::ssize(p.extra));
            positions_.push_back(length + std::ssize(path_) - 1);
        }
    }

    KvCache& cache_;
    std::vector<Planned> sequences_;
    std::vector<std::int64_t> positions_;
    std::vector<CachedRows> views_;
    std::vector<std::int64_t> path_;
};

}  // namespace eyas
