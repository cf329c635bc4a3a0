#pragma once
#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <span>

#include "eyas/core/arena.hpp"
#include "eyas/model/concept.hpp"
#include "eyas/model/eagle3_batch.hpp"
#include "eyas/model/eagle3_options.hpp"
#include "eyas/model/eagle3_parameters.hpp"
#include "eyas/model/teacher_head.hpp"
#include "eyas/ops/distillation_loss.hpp"
#include "eyas/ops/linear.hpp"
#include "eyas/ops/rms_norm.hpp"

namespace eyas {

/// Teacher and draft heads, teacher-stationary: supervised target positions are visited in tiles;
/// the teacher is evaluated once per position and serves every TTT step that predicts it; draft
/// logits exist for one tile and one step at a time. Rows without supervision are never computed,
/// and no [T, V] or [T, W] tensor exists. One thread drives it; it owns scratch only.
template <Device Dev, class T>
class DistillationHeads {
public:
    static constexpr std::int64_t tile_rows = 512;

    DistillationHeads(const Dev& device, const ModelConfig& config, const Eagle3Options& options,
                      const VocabMap& map)
        : device_(device), c_(config), o_(options), map_(map) {}

    /// Memory for batches of up to `rows` rows.
    void lay_out(Arena& arena, std::int64_t rows) {
        constexpr const char* part = "tiles of the heads";
        const auto n = std::min(tile_rows, rows), d = c_.hidden_size, w = c_.draft_vocab_size;
        arena.give(states_, n * c_.target_hidden_size, part), arena.give(teacher_, n * w, part);
        arena.give(tile_, TeacherHead<T>::tile_elements(n, c_.vocab_size - w), part);
        arena.give(logits_, n * w, part);
        for (auto* a : {&gathered_, &normed_, &d_gathered_}) arena.give(*a, n * d, part);
        if (!std::same_as<T, float>)
            arena.give(rounded_, n * w, part), arena.give(scratch_, n * d, part);
        arena.give(inverse_rms_, n, part), arena.give(teacher_rows_, n, part);
        arena.give(kept_, n, part), arena.give(used_, n, part), arena.give(draft_rows_, n, part);
        arena.give(log_acceptance_, o_.ttt_length, part);
        arena.give(weights_, o_.ttt_length, part);
    }

    /// Metrics of the batch; with `dh` also gradients: adds scale * d total / d lm_head and norm to
    /// the parameters and writes scale * d total / d hidden of step k to dh[k] [N, D]. hidden[k]
    /// [N, D] is the result of TTT step k. Good until the next call.
    const StepMetrics& run(Eagle3Parameters<T>& p, const TeacherHead<T>& teacher,
                           const Eagle3Batch<T>& batch, std::span<const T* const> hidden,
                           std::span<T* const> dh, float scale) {
        weights_.assign(hidden.size(), Coefficients{});
        for (T* g : dh) std::fill_n(g, batch.rows() * c_.hidden_size, T(0.f));
        if (!dh.empty() && o_.loss == LossType::CrossEntropy)
            for (std::size_t k = 0; k < weights_.size(); ++k)
                weights_[k].cross_entropy = decay(k) * scale / static_cast<float>(batch.rows());
        const bool twice = !dh.empty() && o_.loss != LossType::CrossEntropy;
        pass(p, teacher, batch, hidden, twice ? std::span<T* const>() : dh);
        if (twice) {  // LK weights need whole-batch rates
            lk_coefficients(metrics_, batch.rows(), scale);
            pass(p, teacher, batch, hidden, dh);
        }
        return metrics_;
    }

private:
    /// Gradient weights of one TTT step. log_acceptance: weight of d log a instead of d a.
    struct Coefficients {
        float cross_entropy = 0, acceptance = 0;
        bool log_acceptance = false;
    };

    float decay(std::size_t k) const {
        return static_cast<float>(std::pow(o_.loss_decay, static_cast<double>(k)));
    }

    double lambda_weight(const StepMetrics& m, std::size_t k) const {
        return o_.kl_scale * std::exp(-o_.kl_decay * m.acceptance_rate(k));
    }

    void lk_coefficients(const StepMetrics& m, std::int64_t rows, float scale) {
        auto& c = weights_;
        for (std::size_t k = 0; k < c.size(); ++k) {
            const double weight = decay(k) * scale, accepted = std::max(m.acceptance_rows[k], 1e-8);
            c[k].log_acceptance = o_.loss == LossType::LkAlpha;
            const double w = c[k].log_acceptance ? 0 : lambda_weight(m, k);
            c[k].cross_entropy = static_cast<float>(weight * w / static_cast<double>(rows));
            c[k].acceptance = static_cast<float>(-weight * (1 - w) / accepted);
        }
    }

    void pass(Eagle3Parameters<T>& p, const TeacherHead<T>& teacher, const Eagle3Batch<T>& batch,
              std::span<const T* const> hidden, std::span<T* const> dh) {
        const auto steps = hidden.size();
        auto& m = metrics_;
        m.total_loss = 0;
        for (auto* v : {&m.loss, &m.correct, &m.supervised, &m.acceptance_sum, &m.acceptance_rows})
            v->assign(steps, 0);
        log_acceptance_.assign(steps, 0);
        const auto total = static_cast<std::int64_t>(batch.supervised.size());
        for (std::int64_t begin = 0; begin < total; begin += tile_rows) {
            const auto n = std::min(tile_rows, total - begin);
            evaluate_teacher(teacher, batch, batch.supervised.data() + begin, n, m);
            for (std::size_t k = 0; k < steps; ++k)
                draft_step(p, batch, k, hidden[k], dh.empty() ? nullptr : dh[k], weights_[k], m);
        }
        for (std::size_t k = 0; k < steps; ++k) {
            finish(m, k, batch.rows());
            m.total_loss += decay(k) * m.loss[k];
        }
    }

    /// Fills states_, then keeps in kept_ the target rows whose teacher token has a draft id, with
    /// their probabilities compacted to the front of teacher_ [kept, W].
    void evaluate_teacher(const TeacherHead<T>& teacher, const Eagle3Batch<T>& batch,
                          const std::int64_t* rows, std::int64_t n, StepMetrics& m) {
        const auto dt = teacher.width(), w = teacher.draft_vocab_size();
        states_.resize(static_cast<std::size_t>(n * dt));
        teacher_.resize(static_cast<std::size_t>(n * w));
        const T* target = batch.target.data();
        for (std::int64_t r = 0; r < n;
             ++r) {  // the teacher of row q is state q+1; none past the end
            const auto q = rows[r] % batch.tokens;
            T* to = states_.data() + r * dt;
            if (q + 1 < batch.tokens)
                std::copy_n(target + (rows[r] + 1) * dt, dt, to);
            else
                std::fill_n(to, dt, T(0.f));
            for (std::size_t k = 0; k < m.supervised.size() && static_cast<std::int64_t>(k) <= q;
                 ++k)
                m.supervised[k] += 1;
        }
        teacher.evaluate(device_, states_.data(), n, teacher_.data(), tile_, teacher_rows_);
        kept_.clear();
        for (std::int64_t r = 0; r < n; ++r) {
            const auto& row = teacher_rows_[static_cast<std::size_t>(r)];
            if (!map_.t2d[static_cast<std::size_t>(row.token)]) continue;
            const auto to = static_cast<std::int64_t>(kept_.size());
            if (to != r) std::copy_n(teacher_.data() + r * w, w, teacher_.data() + to * w);
            kept_.push_back({rows[r], row.token, row.log_sum(), 0});
        }
        device_.for_each_row(static_cast<std::int64_t>(kept_.size()), [this, w](std::int64_t r) {
            auto& kept = kept_[static_cast<std::size_t>(r)];
            kept.share = teacher_probabilities(teacher_.data() + r * w, w, kept.log_sum);
        });
    }

    /// One TTT step of the current tile: forward, metrics and, with dh, backward.
    void draft_step(Eagle3Parameters<T>& p, const Eagle3Batch<T>& batch, std::size_t k,
                    const T* hidden, T* dh, const Coefficients& weight, StepMetrics& m) {
        const auto d = c_.hidden_size, w = map_.draft_vocab_size(),
                   shift = static_cast<std::int64_t>(k);
        used_.clear();
        for (std::size_t r = 0; r < kept_.size(); ++r)
            if (kept_[r].row % batch.tokens >= shift) used_.push_back(r);
        const auto n = static_cast<std::int64_t>(used_.size());
        if (n == 0) return;
        for (auto* v : {&gathered_, &normed_}) v->resize(static_cast<std::size_t>(n * d));
        logits_.resize(static_cast<std::size_t>(n * w));
        inverse_rms_.resize(static_cast<std::size_t>(n));
        draft_rows_.resize(static_cast<std::size_t>(n));
        for (std::int64_t r = 0; r < n; ++r)
            std::copy_n(hidden + (kept_[used_[static_cast<std::size_t>(r)]].row - shift) * d, d,
                        gathered_.data() + r * d);
        if (c_.norm_output)
            rms_norm(device_, gathered_.data(), d, p.value(p.norm), normed_.data(), d,
                     inverse_rms_.data(), n, d, static_cast<float>(c_.rms_norm_eps));
        else
            std::ranges::copy(gathered_, normed_.begin());
        device_.matmul(Matmul<T, float>{Op::None, Op::Transposed, n, w, d, normed_.data(), d,
                                        p.value(p.lm_head), d, logits_.data(), w, 1.f, 0.f});
        score_rows(n, w, dh != nullptr, weight);
        for (std::int64_t r = 0; r < n; ++r) {
            const auto& row = draft_rows_[static_cast<std::size_t>(r)];
            m.loss[k] += row.loss;
            m.correct[k] +=
                map_.target_id(row.best) == kept_[used_[static_cast<std::size_t>(r)]].token ? 1 : 0;
            m.acceptance_sum[k] += row.acceptance;
            m.acceptance_rows[k] += 1;
            if (row.acceptance > 0)
                log_acceptance_[k] += std::log(static_cast<double>(row.acceptance));
        }
        if (dh) backward_rows(p, n, shift, dh);
    }

    /// Softmax, loss, acceptance of each row; with `gradient`, logits_ becomes the logits'
    /// gradient.
    void score_rows(std::int64_t n, std::int64_t w, bool gradient, const Coefficients& weight) {
        device_.for_each_row(n, [this, w, gradient, weight](std::int64_t r) {
            const auto kept = used_[static_cast<std::size_t>(r)];
            float* l = logits_.data() + r * w;
            const float* teacher = teacher_.data() + static_cast<std::int64_t>(kept) * w;
            if constexpr (!std::same_as<T, float>)
                for (std::int64_t j = 0; j < w; ++j) l[j] = static_cast<float>(T(l[j]));
            auto& row = draft_rows_[static_cast<std::size_t>(r)];
            row = draft_row(l, teacher, kept_[kept].share, w);
            if (!gradient) return;
            RowWeights rw{weight.cross_entropy, weight.acceptance};
            if (weight.log_acceptance)
                rw.acceptance = row.acceptance > 0 ? rw.acceptance / row.acceptance : 0.f;
            draft_row_backward(l, teacher, kept_[kept].share, row, rw, w);
        });
    }

    void backward_rows(Eagle3Parameters<T>& p, std::int64_t n, std::int64_t shift, T* dh) {
        const auto d = c_.hidden_size, w = map_.draft_vocab_size();
        const T* g = rounded_logits(n * w);
        linear_backward_weight(device_, g, w, normed_.data(), d, p.grad(p.lm_head), n, d, w);
        linear_backward_input(device_, g, w, p.value(p.lm_head), normed_.data(), d, n, d, w, false,
                              scratch_);
        const T* d_rows = normed_.data();
        if (c_.norm_output) {
            d_gathered_.assign(static_cast<std::size_t>(n * d), T(0.f));
            rms_norm_backward(device_, gathered_.data(), d, p.value(p.norm), normed_.data(), d,
                              d_gathered_.data(), d, inverse_rms_.data(), p.grad(p.norm), n, d);
            d_rows = d_gathered_.data();
        }
        for (std::int64_t r = 0; r < n; ++r)
            std::copy_n(d_rows + r * d, d,
                        dh + (kept_[used_[static_cast<std::size_t>(r)]].row - shift) * d);
    }

    /// The logits' gradient in T: the reference rounds it.
    const T* rounded_logits(std::int64_t n) {
        if constexpr (std::same_as<T, float>) {
            return logits_.data();
        } else {
            rounded_.resize(static_cast<std::size_t>(n));
            device_.for_each(n, [this](std::int64_t i) {
                rounded_[static_cast<std::size_t>(i)] = T(logits_[static_cast<std::size_t>(i)]);
            });
            return rounded_.data();
        }
    }

    void finish(StepMetrics& m, std::size_t k, std::int64_t rows) const {
        m.loss[k] /= static_cast<double>(rows);
        const double accepted = std::max(m.acceptance_rows[k], 1e-8);
        if (o_.loss == LossType::LkAlpha) m.loss[k] = -log_acceptance_[k] / accepted;
        if (o_.loss == LossType::LkLambda) {
            const double w = lambda_weight(m, k);
            m.loss[k] = w * m.loss[k] + (1 - w) * (1 - m.acceptance_sum[k] / accepted);
        }
    }

    struct Kept {
        std::int64_t row = 0;    // flat target row b*T + q
        std::int64_t token = 0;  // the teacher's arg-max, a target id
        float log_sum = 0;       // over the whole vocabulary
        float share = 0;         // of the full distribution that lies on draft tokens
    };

    const Dev& device_;
    const ModelConfig& c_;
    const Eagle3Options& o_;
    const VocabMap& map_;
    StepMetrics metrics_;
    ArenaArray<T> states_, gathered_, normed_, d_gathered_, rounded_;
    ArenaArray<float> teacher_, tile_, logits_, inverse_rms_;
    ArenaArray<TeacherRow> teacher_rows_;
    ArenaArray<Kept> kept_;
    ArenaArray<std::size_t> used_;
    ArenaArray<DraftRow> draft_rows_;
    ArenaArray<double> log_acceptance_;
    ArenaArray<Coefficients> weights_;
    RoundingScratch scratch_;
};

}  // namespace eyas
