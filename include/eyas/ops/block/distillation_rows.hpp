#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "eyas/device/block.hpp"
#include "eyas/ops/distillation_rows.hpp"

namespace eyas {

namespace detail {

constexpr int wide_row_threads = 512;  // a row is as wide as a vocabulary

/// The largest of a row, everywhere in the block.
template <class B>
EYAS_HD float row_top(B& block, const float* z, std::int64_t n) {
    return block.template reduce<float>(
        [&](int t) {
            float top = -std::numeric_limits<float>::infinity();
            for (std::int64_t j = t; j < n; j += block.threads()) top = z[j] > top ? z[j] : top;
            return top;
        },
        Larger{});
}

/// The first place that holds `value`.
template <class B>
EYAS_HD std::int64_t row_first(B& block, const float* z, std::int64_t n, float value) {
    return block.template reduce<std::int64_t>(
        [&](int t) {
            for (std::int64_t j = t; j < n; j += block.threads())
                if (z[j] == value) return j;
            return n - 1;
        },
        Smaller{});
}

struct StartRow {
    TeacherRow* rows;
    EYAS_HD void operator()(std::int64_t r) const {
        rows[r].top = -std::numeric_limits<float>::infinity();
        rows[r].sum = 0;
        rows[r].token = std::numeric_limits<std::int64_t>::max();
    }
};

/// visit() by a block.
struct VisitRow {
    using Shared = NoShared;
    TeacherRow* rows;
    const float* z;
    const std::int64_t* ids;
    std::int64_t count;

    template <class B>
    EYAS_HD void operator()(B& block, Shared&) const {
        const float* l = z + block.index() * count;
        TeacherRow& row = rows[block.index()];
        const float top = row_top(block, l, count);
        const auto first = row_first(block, l, count, top);
        const float before = block.template reduce<float>([&](int) { return row.top; }, Larger{});
        const float all = top > before ? top : before;
        const float sum = block.template reduce<float>(
            [&](int t) {
                float s = 0;
                for (std::int64_t j = t; j < count; j += block.threads()) s += exp_fast(l[j] - all);
                return s;
            },
            Add{});
        block.each([&](int t) {
            if (t > 0) return;
            const auto token = ids[first];
            if (top > before) {
                row.token = token;
                row.sum *= exp_fast(before - top);
                row.top = top;
            } else if (top == before && token < row.token) {
                row.token = token;
            }
            row.sum += sum;
        });
    }
};

/// teacher_probabilities() by a block.
struct TeacherProbabilityRow {
    using Shared = NoShared;
    float* z;
    KeptRow* kept;
    std::int64_t width;

    template <class B>
    EYAS_HD void operator()(B& block, Shared&) const {
        KeptRow& row = kept[block.index()];
        float* l = z + row.at * width;
        const float top = row_top(block, l, width);
        const float sum = block.template reduce<float>(
            [&](int t) {
                float s = 0;
                for (std::int64_t j = t; j < width; j += block.threads())
                    s += l[j] = exp_fast(l[j] - top);
                return s;
            },
            Add{});
        const float inverse = 1.f / sum;
        block.each([&](int t) {
            for (std::int64_t j = t; j < width; j += block.threads()) l[j] *= inverse;
            if (t == 0) row.share = std::exp(top + std::log(sum) - row.log_sum);
        });
    }
};

/// draft_row() and draft_row_backward() by a block.
template <class T>
struct ScoreRow {
    using Shared = NoShared;
    float* logits;
    const float* teacher;
    const KeptRow* kept;
    const std::int64_t* used;
    DraftRow* rows;
    std::int64_t width;
    bool gradient;
    StepWeights weights;

    /// add(sums, j) for every column.
    template <int N, class B, class F>
    EYAS_HD Sums<N> sums(B& block, F add) const {
        return block.template reduce<Sums<N>>(
            [&](int t) {
                Sums<N> s{};
                for (std::int64_t j = t; j < width; j += block.threads()) add(s.of, j);
                return s;
            },
            Add{});
    }

    template <class B>
    EYAS_HD void operator()(B& block, Shared&) const {
        const KeptRow& k = kept[used[block.index()]];
        float* l = logits + block.index() * width;
        const float* p = teacher + k.at * width;
        const float share = k.share;
        const float top = block.template reduce<float>(
            [&](int t) {
                float best = -std::numeric_limits<float>::infinity();
                for (std::int64_t j = t; j < width; j += block.threads()) {
                    l[j] = static_cast<float>(T(l[j]));
                    if (l[j] > best) best = l[j];
                }
                return best;
            },
            Larger{});
        DraftRow row;
        row.best = row_first(block, l, width, top);
        const auto first = sums<3>(block, [&](float* s, std::int64_t j) {
            const float shifted = l[j] - top, e = exp_fast(shifted);
            s[0] += p[j] * shifted, s[1] += p[j], s[2] += e;
            l[j] = e;
        });
        row.loss = first.of[1] * std::log(first.of[2]) - first.of[0];
        const float inverse = 1.f / first.of[2];
        const auto second = sums<2>(block, [&](float* s, std::int64_t j) {
            const float q = l[j] * inverse, t = share * p[j];
            l[j] = q;
            s[0] += q < t ? q : t, s[1] += q < t ? q : (q == t ? 0.5f * q : 0.f);
        });
        row.acceptance = second.of[0], row.mean_below = second.of[1];
        const RowWeights w = weights.of(row.acceptance);
        block.each([&](int t) {
            if (t == 0) rows[block.index()] = row;
            if (!gradient) return;
            for (std::int64_t j = t; j < width; j += block.threads()) {
                const float q = l[j], target = share * p[j];
                const float below = q < target ? 1.f : (q == target ? 0.5f : 0.f);
                float g = w.cross_entropy * (q - p[j]);
                if (w.acceptance != 0.f) g += w.acceptance * q * (below - row.mean_below);
                l[j] = g;
            }
        });
    }
};

}  // namespace detail

template <BlockDevice Dev>
void start_rows(const Dev& device, TeacherRow* rows, std::int64_t n) {
    launch_each(device, n, detail::StartRow{rows});
}
template <BlockDevice Dev>
void visit_rows(const Dev& device, TeacherRow* rows, const float* z, std::int64_t n,
                const std::int64_t* ids, std::int64_t count) {
    device.launch(n, detail::wide_row_threads, detail::VisitRow{rows, z, ids, count});
}
template <BlockDevice Dev>
void teacher_probability_rows(const Dev& device, float* z, KeptRow* kept, std::int64_t n,
                              std::int64_t width) {
    device.launch(n, detail::wide_row_threads, detail::TeacherProbabilityRow{z, kept, width});
}
template <class T, BlockDevice Dev>
void score_rows(const Dev& device, float* logits, const float* teacher, const KeptRow* kept,
                const std::int64_t* used, DraftRow* rows, std::int64_t n, std::int64_t width,
                bool gradient, StepWeights weights) {
    device.launch(n, detail::wide_row_threads,
                  detail::ScoreRow<T>{logits, teacher, kept, used, rows, width, gradient, weights});
}

}  // namespace eyas
