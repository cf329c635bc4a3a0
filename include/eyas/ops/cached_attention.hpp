#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <exception>
#include <span>
#include <vector>

#include "eyas/device/concept.hpp"
#include "eyas/ops/cached_products.hpp"
#include "eyas/ops/cached_rows.hpp"
#include "eyas/ops/exp.hpp"
#include "eyas/ops/largest.hpp"

#ifdef __NVCC__
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675  // pragmas that the host's compiler knows
#endif

namespace eyas {

namespace detail {

/// One thread's numbers of a tile: queries of some rows and of the heads that read one kv head.
class CachedTile {
public:
    /// Rows of a tile, such that its numbers stay in a core's cache.
    static std::int64_t rows_of(const HeadShape& s) {
        return std::max<std::int64_t>(1, 16 / s.group());
    }

    /// Rows [begin, end) of `a`, kv head g.
    void run(const HeadShape& shape, const CachedRows& a, std::int64_t g, std::int64_t begin,
             std::int64_t end) {
        shape_ = &shape, a_ = &a, g_ = g, begin_ = begin;
        pairs_ = (end - begin) * shape.group();
        std::int64_t longest = 0;
        for (auto r = begin; r < end; ++r)
            longest = std::max(longest, seen(r) + std::ssize(a.extra_of(r)));
        stride_ = (longest + 2 * key_block - 1) / key_block * key_block;
        resize();
        score();
        for (std::int64_t p = 0; p < pairs_; ++p) softmax(p);
        sum_values();
    }

    static CachedTile& of_thread() {
        static thread_local CachedTile tile;
        return tile;
    }

private:
    std::int64_t row(std::int64_t p) const { return begin_ + p / shape_->group(); }
    std::int64_t seen(std::int64_t r) const { return a_->seen[static_cast<std::size_t>(r)]; }
    std::int64_t seen_of(std::int64_t p) const { return seen_[static_cast<std::size_t>(p)]; }
    std::int64_t head(std::int64_t p) const { return g_ * shape_->group() + p % shape_->group(); }
    const float* keys(std::int64_t block) const {
        return a_->blocks[static_cast<std::size_t>(block)] + g_ * shape_->block_size();
    }
    const float* values(std::int64_t block) const {
        return keys(block) + key_block * shape_->head_dim;
    }
    float* scores(std::int64_t p) { return scores_.data() + p * stride_; }

    void resize() {
        scores_.resize(static_cast<std::size_t>(pairs_ * stride_));
        q_.resize(static_cast<std::size_t>(pairs_)), to_.resize(q_.size());
        weights_.resize(q_.size()), seen_.resize(q_.size());
        for (std::int64_t p = 0; p < pairs_; ++p) {
            const auto at = static_cast<std::size_t>(p);
            q_[at] = a_->q + row(p) * a_->q_stride + head(p) * shape_->head_dim;
            seen_[at] = seen(row(p));
        }
    }

    void score() {
        const auto width = shape_->head_dim;
        std::int64_t shared = 0;
        for (std::int64_t p = 0; p < pairs_; ++p) shared = std::max(shared, seen_of(p));
        for (std::int64_t b = 0; b * key_block < shared; ++b) {
            for (std::int64_t p = 0; p < pairs_; ++p)
                to_[static_cast<std::size_t>(p)] = scores(p) + b * key_block;
            in_fours(pairs_, [&]<int P>(std::int64_t p) {
                score_block<P>(q_.data() + p, keys(b), width, to_.data() + p);
            });
        }
        for (std::int64_t p = 0; p < pairs_; ++p) {
            const auto extra = a_->extra_of(row(p));
            for (std::size_t i = 0; i < extra.size(); i += key_block) score_extra(p, extra, i);
        }
    }

    /// Up to 16 listed keys, brought together into a block of their own.
    void score_extra(std::int64_t p, std::span<const std::int64_t> extra, std::size_t first) {
        const auto width = shape_->head_dim;
        const auto n = std::min<std::size_t>(key_block, extra.size() - first);
        gathered_.assign(static_cast<std::size_t>(key_block * width), 0.f);
        for (std::size_t i = 0; i < n; ++i) {
            const auto slot = extra[first + i];
            const float* from = keys(slot / key_block) + slot % key_block;
            for (std::int64_t e = 0; e < width; ++e)
                gathered_[static_cast<std::size_t>(e * key_block) + i] = from[e * key_block];
        }
        float numbers[key_block];
        float* to[] = {numbers};
        score_block<1>(q_.data() + p, gathered_.data(), width, to);
        std::copy_n(numbers, n, scores(p) + seen_of(p) + static_cast<std::int64_t>(first));
    }

    void softmax(std::int64_t p) {
        float* x = scores(p);
        const auto n = seen_of(p) + std::ssize(a_->extra_of(row(p)));
        const float scale = 1.f / std::sqrt(static_cast<float>(shape_->head_dim));
        const float top = largest(x, n) * scale;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t j = 0; j < n; ++j) {
            x[j] = exp_fast(x[j] * scale - top);
            sum += x[j];
        }
        const float inverse = 1.f / sum;
#pragma omp simd
        for (std::int64_t j = 0; j < n; ++j) x[j] *= inverse;
    }

    void sum_values() {
        const auto width = shape_->head_dim;
        std::int64_t most = 0;
        for (std::int64_t p = 0; p < pairs_; ++p) {
            to_[static_cast<std::size_t>(p)] = a_->out + row(p) * a_->out_stride + head(p) * width;
            std::fill_n(to_[static_cast<std::size_t>(p)], width, 0.f);
            most = std::max(most, seen_of(p));
        }
        for (std::int64_t b = 0; b * key_block < most; ++b) add_block(b);
        for (std::int64_t p = 0; p < pairs_; ++p) add_extra(p);
    }

    /// Keys that four queries see, for all of them at a time; then those that some see, for each.
    void add_block(std::int64_t b) {
        const auto width = shape_->head_dim;
        const auto count = [&](std::int64_t p) {
            return std::clamp<std::int64_t>(seen_of(p) - b * key_block, 0, key_block);
        };
        for (std::int64_t p = 0; p < pairs_; ++p)
            weights_[static_cast<std::size_t>(p)] = scores(p) + b * key_block;
        in_fours(pairs_, [&]<int P>(std::int64_t p) {
            auto shared = count(p);
            for (int i = 1; i < P; ++i) shared = std::min(shared, count(p + i));
            add_values<P>(weights_.data() + p, values(b), shared, width, to_.data() + p);
            for (auto q = p; q < p + P; ++q) {
                const float* rest = weights_[static_cast<std::size_t>(q)] + shared;
                add_values<1>(&rest, values(b) + shared * width, count(q) - shared, width,
                              to_.data() + q);
            }
        });
    }

    void add_extra(std::int64_t p) {
        const float* weight = scores(p) + seen_of(p);
        for (const auto slot : a_->extra_of(row(p)))
            add_values<1>(&weight, values(slot / key_block) + slot % key_block * shape_->head_dim,
                          1, shape_->head_dim, to_.data() + p),
                ++weight;
    }

    const HeadShape* shape_ = nullptr;
    const CachedRows* a_ = nullptr;
    std::int64_t g_ = 0, begin_ = 0, pairs_ = 0, stride_ = 0;
    std::vector<float> scores_;  // [pairs, stride]
    std::vector<float> gathered_;
    std::vector<const float*> q_, weights_;
    std::vector<std::int64_t> seen_;  // [pairs]
    std::vector<float*> to_;
};
}  // namespace detail

/// Attention of several sequences' new rows. Rows of a sequence must see nondecreasing numbers of
/// slots. Works on a device whose memory is the host's. Memory beyond the arguments: a tile of
/// numbers a thread, 16 queries by the longest row; where there is none, throws what the allocator
/// does.
template <Device D>
void cached_attention(const D& device, const HeadShape& shape,
                      std::span<const CachedRows> sequences) {
    struct Task {
        std::size_t sequence;
        std::int64_t head, begin, end;
    };
    std::vector<Task> tasks;
    std::int64_t numbers = 0;  // of the largest task, eight products an operation
    const auto step = detail::CachedTile::rows_of(shape);
    for (std::size_t s = 0; s < sequences.size(); ++s) {
        const auto& a = sequences[s];
        const auto keys = a.rows > 0 ? a.seen.back() + a.rows : 0;
        numbers =
            std::max(numbers, std::min(a.rows, step) * shape.group() * keys * shape.head_dim / 4);
        for (std::int64_t r = 0; r < a.rows; r += step)
            for (std::int64_t g = 0; g < shape.kv_heads; ++g)
                tasks.push_back({s, g, r, std::min(a.rows, r + step)});
    }
    std::exception_ptr error;  // the first: none may leave a parallel loop
    std::atomic<bool> failed{false};
    for_each_light_row(device, std::ssize(tasks), numbers, [&](std::int64_t i) {
        const auto& t = tasks[static_cast<std::size_t>(i)];
        try {
            detail::CachedTile::of_thread().run(shape, sequences[t.sequence], t.head, t.begin,
                                                t.end);
        } catch (...) {
            if (!failed.exchange(true)) error = std::current_exception();
        }
    });
    if (error) std::rethrow_exception(error);
}

}  // namespace eyas

#ifdef __NVCC__
#pragma nv_diagnostic pop
#endif
