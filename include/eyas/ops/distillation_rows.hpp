#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>

#include "eyas/device/concept.hpp"
#include "eyas/ops/distillation_loss.hpp"

namespace eyas {

/// A supervised row whose teacher token has a draft id.
struct KeptRow {
    std::int64_t row = 0;    // flat target row b*T + q
    std::int64_t token = 0;  // the teacher's arg-max, a target id
    std::int64_t at = 0;     // its row of the tile of teacher logits
    float log_sum = 0;       // over the whole vocabulary
    float share = 0;         // of the full distribution that lies on draft tokens
};

/// Gradient weights of one TTT step. log_acceptance: weight of d log a instead of d a.
struct StepWeights {
    float cross_entropy = 0, acceptance = 0;
    bool log_acceptance = false;

    EYAS_HD RowWeights of(float row_acceptance) const {
        RowWeights w;
        w.cross_entropy = cross_entropy;
        w.acceptance = acceptance;
        if (log_acceptance) w.acceptance = row_acceptance > 0 ? acceptance / row_acceptance : 0.f;
        return w;
    }
};

/// Starts n running rows.
template <Device Dev>
void start_rows(const Dev& device, TeacherRow* rows, std::int64_t n) {
    device.for_each(n, [=](std::int64_t r) { rows[r] = TeacherRow{}; });
}

/// Adds logits z [n, count], whose target ids are ids[0..count), to n running rows.
template <Device Dev>
void visit_rows(const Dev& device, TeacherRow* rows, const float* z, std::int64_t n,
                const std::int64_t* ids, std::int64_t count) {
    device.for_each_row(n, [=](std::int64_t r) { visit(rows[r], z + r * count, ids, count); });
}

/// Logits of the kept rows become probabilities, in place; writes their share. z [., width].
template <Device Dev>
void teacher_probability_rows(const Dev& device, float* z, KeptRow* kept, std::int64_t n,
                              std::int64_t width) {
    device.for_each_row(n, [=](std::int64_t r) {
        kept[r].share = teacher_probabilities(z + kept[r].at * width, width, kept[r].log_sum);
    });
}

/// Softmax, loss and acceptance of n rows of draft logits l [n, width], which are rounded to T
/// first; row r is kept[used[r]]. With `gradient`, l becomes the gradient at the logits. `teacher`
/// holds the probabilities of the tile.
template <class T, Device Dev>
void score_rows(const Dev& device, float* logits, const float* teacher, const KeptRow* kept,
                const std::int64_t* used, DraftRow* rows, std::int64_t n, std::int64_t width,
                bool gradient, StepWeights weights) {
    device.for_each_row(n, [=](std::int64_t r) {
        const auto& k = kept[used[r]];
        float* l = logits + r * width;
        const float* p = teacher + k.at * width;
        if constexpr (!std::same_as<T, float>)
            for (std::int64_t j = 0; j < width; ++j) l[j] = static_cast<float>(T(l[j]));
        rows[r] = draft_row(l, p, k.share, width);
        if (gradient)
            draft_row_backward(l, p, k.share, rows[r], weights.of(rows[r].acceptance), width);
    });
}

}  // namespace eyas
