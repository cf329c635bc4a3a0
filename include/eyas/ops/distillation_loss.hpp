#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "eyas/ops/exp.hpp"
#include "eyas/ops/largest.hpp"

namespace eyas {

/// Running arg-max and log-sum-exp of one row of teacher logits, visited tile by tile.
/// Ties keep the lowest target id, whatever the order of the tiles.
struct TeacherRow {
    float top = -std::numeric_limits<float>::infinity();
    float sum = 0;  // sum of exp(z - top) so far
    std::int64_t token = std::numeric_limits<std::int64_t>::max();

    float log_sum() const { return top + std::log(sum); }
};

/// Adds logits z [n] whose target ids are ids[0..n), ascending.
inline void visit(TeacherRow& row, const float* z, const std::int64_t* ids, std::int64_t n) {
    const float top = largest(z, n);
    if (top >= row.top) {
        const auto first = ids[first_of(z, n, top)];
        row.token = top > row.top ? first : std::min(row.token, first);
        if (top > row.top) {
            row.sum *= exp_fast(row.top - top);
            row.top = top;
        }
    }
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = 0; j < n; ++j) sum += exp_fast(z[j] - row.top);
    row.sum += sum;
}

/// Teacher probabilities over the draft vocabulary, in place of its logits z [W].
/// p = softmax(z); returns exp(logsumexp_W(z) - logsumexp_V): the share of the full distribution
/// that lies on draft tokens, so that target_p_on_draft = share * p. `log_sum_all` is logsumexp
/// over V.
inline float teacher_probabilities(float* z, std::int64_t n, float log_sum_all) {
    const float top = largest(z, n);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = 0; j < n; ++j) {
        z[j] = exp_fast(z[j] - top);
        sum += z[j];
    }
    const float inverse = 1.f / sum;
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) z[j] *= inverse;
    return std::exp(top + std::log(sum) - log_sum_all);
}

namespace detail {
/// Of probabilities, which are ordered as their bits are.
inline float smaller(float q, float t) {
    const auto a = std::bit_cast<std::int32_t>(q), b = std::bit_cast<std::int32_t>(t);
    return std::bit_cast<float>(std::min(a, b));
}
/// 1 where q < t, 0.5 where they are equal, 0 elsewhere.
inline float is_below(float q, float t) {
    const auto a = std::bit_cast<std::int32_t>(q), b = std::bit_cast<std::int32_t>(t);
    const auto one = std::bit_cast<std::uint32_t>(1.f), half = std::bit_cast<std::uint32_t>(0.5f);
    return std::bit_cast<float>((one & mask_of(a < b)) | (half & mask_of(a == b)));
}
}  // namespace detail

/// What one row of draft logits gives.
struct DraftRow {
    std::int64_t best = 0;  // arg-max, lowest id on ties
    float loss = 0;         // -sum p log softmax(l)
    float acceptance = 0;   // sum min(share * p, softmax(l))
    float mean_below = 0;   // sum over tokens with q < target of q (half of it where equal)
};

/// Reads logits l [W] and teacher probabilities p [W]; l becomes q = softmax(l).
/// Source of the formulas: docs/numerics.md.
inline DraftRow draft_row(float* l, const float* p, float share, std::int64_t n) {
    const float top = largest(l, n);
    DraftRow row;
    row.best = first_of(l, n, top);
    float sum = 0, cross = 0, mass = 0;
#pragma omp simd reduction(+ : sum, cross, mass)
    for (std::int64_t j = 0; j < n; ++j) {
        const float shifted = l[j] - top;
        cross += p[j] * shifted;
        mass += p[j];
        l[j] = exp_fast(shifted);
        sum += l[j];
    }
    row.loss = mass * std::log(sum) - cross;
    const float inverse = 1.f / sum;
    float acceptance = 0, below = 0;
#pragma omp simd reduction(+ : acceptance, below)
    for (std::int64_t j = 0; j < n; ++j) {
        const float q = l[j] * inverse, t = share * p[j];
        l[j] = q;
        acceptance += detail::smaller(q, t);
        below += q * detail::is_below(q, t);
    }
    row.acceptance = acceptance;
    row.mean_below = below;
    return row;
}

/// How much of each term's gradient a row carries (already times scale and decay).
struct RowWeights {
    float cross_entropy = 0;  // d total / d loss of this row
    float acceptance = 0;     // d total / d acceptance of this row
};

/// q [W] becomes the gradient at the logits:
/// cross_entropy * (q - p) + acceptance * q * (below - mean_below), with below = [q < share * p].
inline void draft_row_backward(float* q, const float* p, float share, const DraftRow& row,
                               RowWeights w, std::int64_t n) {
    if (w.acceptance == 0.f) {
#pragma omp simd
        for (std::int64_t j = 0; j < n; ++j) q[j] = w.cross_entropy * (q[j] - p[j]);
        return;
    }
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) {
        const float below = detail::is_below(q[j], share * p[j]);
        q[j] = w.cross_entropy * (q[j] - p[j]) + w.acceptance * q[j] * (below - row.mean_below);
    }
}

}  // namespace eyas
