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
#include "eyas/ops/distillation_rows.hpp"
#include "eyas/ops/linear.hpp"
#include "eyas/ops/rms_norm.hpp"
#include "eyas/ops/rows.hpp"

namespace eyas {

namespace detail {
/// Rows of a tile of the heads: what the device asks for, or what suits the host's products (with
/// 256 rows oneDNN runs at 0.7 of its rate, bench:trainer).
template <class Dev>
constexpr std::int64_t head_tile_rows() {
    if constexpr (requires { Dev::head_tile_rows; })
        return Dev::head_tile_rows;
    else
        return 512;
}
}  // namespace detail

/// Teacher and draft heads, teacher-stationary: supervised target positions are visited in tiles;
/// the teacher is evaluated once per position and serves every TTT step that predicts it; draft
/// logits exist for one tile and one step at a time. Rows without supervision are never computed,
/// and no [T, V] or [T, W] tensor exists. The host decides which rows of a tile count, from the
/// teacher's tokens. One thread drives it; it owns scratch only.
template <Device Dev, class T>
class DistillationHeads {
public:
    static constexpr std::int64_t tile_rows = detail::head_tile_rows<Dev>();

    DistillationHeads(const Dev& device, const ModelConfig& config, const Eagle3Options& options,
                      const VocabMap& map)
        : device_(device), c_(config), o_(options), map_(map) {}

    /// Memory for batches of up to `rows` rows.
    void lay_out(Arena& arena, std::int64_t rows) {
        constexpr const char* part = "tiles of the heads";
        const auto n = std::min(tile_rows, rows), d = c_.hidden_size, w = c_.draft_vocab_size,
                   k = o_.ttt_length;
        arena.give(states_, n * c_.target_hidden_size, part), arena.give(teacher_, n * w, part);
        arena.give(tile_, TeacherHead<T>::tile_elements(n, c_.vocab_size - w), part);
        arena.give(logits_, n * w, part);
        for (auto* a : {&gathered_, &normed_, &d_gathered_}) arena.give(*a, n * d, part);
        if (!std::same_as<T, float>)
            arena.give(rounded_, n * w, part), arena.give(scratch_, n * d, part);
        arena.give(inverse_rms_, n, part), arena.give(teacher_rows_, n, part);
        arena.give(kept_, n, part), arena.give(draft_rows_, k * n, part);
        for (auto* a : {&used_, &at_}) arena.give(*a, k * n, part);
        arena.give_host(host_teacher_rows_, n, part), arena.give_host(host_kept_, n, part);
        arena.give_host(host_draft_rows_, k * n, part);
        for (auto* a : {&host_used_, &host_at_}) arena.give_host(*a, k * n, part);
        arena.give_host(count_, k, part), arena.give_host(log_acceptance_, k, part);
        arena.give_host(weights_, k, part);
    }

    /// Metrics of the batch; with `dh` also gradients: adds scale * d total / d lm_head and norm to
    /// the parameters and writes scale * d total / d hidden of step k to dh[k] [N, D]. hidden[k]
    /// [N, D] is the result of TTT step k. Good until the next call.
    const StepMetrics& run(Eagle3Parameters<T>& p, const TeacherHead<T>& teacher,
                           const Eagle3Batch<T>& batch, std::span<const T* const> hidden,
                           std::span<T* const> dh, float scale) {
        weights_.assign(hidden.size(), StepWeights{});
        for (T* g : dh)
            device_.zero(g, static_cast<std::size_t>(batch.rows() * c_.hidden_size) * sizeof(T));
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
            choose_rows(batch, batch.supervised.data() + begin, n, steps);
            for (std::size_t k = 0; k < steps; ++k)
                draft_step(p, k, hidden[k], dh.empty() ? nullptr : dh[k], weights_[k]);
            tally(m);
        }
        for (std::size_t k = 0; k < steps; ++k) {
            finish(m, k, batch.rows());
            m.total_loss += decay(k) * m.loss[k];
        }
    }

    /// Fills states_, teacher_ with logits and teacher_rows_ with what the rows' teachers say.
    void evaluate_teacher(const TeacherHead<T>& teacher, const Eagle3Batch<T>& batch,
                          const std::int64_t* rows, std::int64_t n, StepMetrics& m) {
        const auto dt = teacher.width(), w = teacher.draft_vocab_size();
        states_.resize(static_cast<std::size_t>(n * dt));
        teacher_.resize(static_cast<std::size_t>(n * w));
        host_at_.resize(static_cast<std::size_t>(n)), at_.resize(host_at_.size());
        for (std::int64_t r = 0; r < n; ++r) {
            // The teacher of row q of a document is its state q+1; none past the end.
            const auto q = batch.in_document(rows[r]);
            host_at_[static_cast<std::size_t>(r)] = batch.ends_document(rows[r]) ? -1 : rows[r] + 1;
            for (std::size_t k = 0; k < m.supervised.size() && static_cast<std::int64_t>(k) <= q;
                 ++k)
                m.supervised[k] += 1;
        }
        upload(device_, std::span<const std::int64_t>(host_at_), at_.data());
        gather_rows(device_, batch.target.data(), at_.data(), states_.data(), n, dt);
        teacher.evaluate(device_, states_.data(), n, teacher_.data(), tile_, teacher_rows_);
    }

    /// Keeps the target rows whose teacher token has a draft id, with their probabilities, and
    /// lists for each TTT step those that it predicts: used_ [K, kept] of the kept rows, at_ [K,
    /// kept] where their hidden states are, count_ [K].
    void choose_rows(const Eagle3Batch<T>& batch, const std::int64_t* rows, std::int64_t n,
                     std::size_t steps) {
        host_teacher_rows_.resize(static_cast<std::size_t>(n));
        download(device_, teacher_rows_.data(), std::span(host_teacher_rows_));
        host_kept_.clear();
        for (std::int64_t r = 0; r < n; ++r) {
            const auto& row = host_teacher_rows_[static_cast<std::size_t>(r)];
            if (map_.t2d[static_cast<std::size_t>(row.token)])
                host_kept_.push_back({rows[r], row.token, r, row.log_sum(), 0});
        }
        const auto kept = host_kept_.size();
        for (auto* a : {&used_, &at_, &host_used_, &host_at_}) a->resize(steps * kept);
        kept_.resize(kept), count_.assign(steps, 0);
        for (std::size_t k = 0; k < steps; ++k)
            for (std::size_t r = 0; r < kept; ++r) {
                const auto shift = static_cast<std::int64_t>(k), row = host_kept_[r].row;
                if (batch.in_document(row) < shift) continue;
                const auto to = k * kept + static_cast<std::size_t>(count_[k]++);
                host_used_[to] = static_cast<std::int64_t>(r);
                host_at_[to] = row - shift;
            }
        upload(device_, std::span<const KeptRow>(host_kept_), kept_.data());
        upload(device_, std::span<const std::int64_t>(host_used_), used_.data());
        upload(device_, std::span<const std::int64_t>(host_at_), at_.data());
        teacher_probability_rows(device_, teacher_.data(), kept_.data(),
                                 static_cast<std::int64_t>(kept), map_.draft_vocab_size());
    }

    /// One TTT step of the current tile: forward, scores and, with dh, backward.
    void draft_step(Eagle3Parameters<T>& p, std::size_t k, const T* hidden, T* dh,
                    const StepWeights& weights) {
        const auto d = c_.hidden_size, w = map_.draft_vocab_size(), n = count_[k];
        draft_rows_.resize(weights_.size() * kept_.size());
        if (n == 0) return;
        const auto first = k * kept_.size();
        for (auto* v : {&gathered_, &normed_}) v->resize(static_cast<std::size_t>(n * d));
        logits_.resize(static_cast<std::size_t>(n * w));
        inverse_rms_.resize(static_cast<std::size_t>(n));
        gather_rows(device_, hidden, at_.data() + first, gathered_.data(), n, d);
        if (c_.norm_output)
            rms_norm(device_, gathered_.data(), d, p.value(p.norm), normed_.data(), d,
                     inverse_rms_.data(), n, d, static_cast<float>(c_.rms_norm_eps));
        else
            device_.copy(gathered_.data(), normed_.data(), gathered_.size() * sizeof(T));
        linear_unrounded(device_, normed_.data(), p.weight(p.lm_head), logits_.data(), n);
        score_rows<T>(device_, logits_.data(), teacher_.data(), kept_.data(), used_.data() + first,
                      draft_rows_.data() + first, n, w, dh != nullptr, weights);
        if (dh) backward_rows(p, n, at_.data() + first, dh);
    }

    /// Adds the tile's rows to the metrics, in their order.
    void tally(StepMetrics& m) {
        host_draft_rows_.resize(draft_rows_.size());
        download(device_, draft_rows_.data(), std::span(host_draft_rows_));
        for (std::size_t k = 0; k < weights_.size(); ++k)
            for (std::size_t r = 0; r < static_cast<std::size_t>(count_[k]); ++r) {
                const auto i = k * host_kept_.size() + r;
                const auto& row = host_draft_rows_[i];
                const auto token = host_kept_[static_cast<std::size_t>(host_used_[i])].token;
                m.loss[k] += row.loss;
                m.correct[k] += map_.target_id(row.best) == token ? 1 : 0;
                m.acceptance_sum[k] += row.acceptance;
                m.acceptance_rows[k] += 1;
                if (row.acceptance > 0)
                    log_acceptance_[k] += std::log(static_cast<double>(row.acceptance));
            }
    }

    /// `at`: where the rows' hidden states, and so their gradients, are.
    void backward_rows(Eagle3Parameters<T>& p, std::int64_t n, const std::int64_t* at, T* dh) {
        const auto d = c_.hidden_size, w = map_.draft_vocab_size();
        const T* g = rounded_logits(n * w);
        linear_backward_weight(device_, g, w, normed_.data(), d, p.grad(p.lm_head), n, d, w);
        linear_backward_input(device_, g, w, p.value(p.lm_head), normed_.data(), d, n, d, w, false,
                              scratch_);
        const T* d_rows = normed_.data();
        if (c_.norm_output) {
            d_gathered_.resize(static_cast<std::size_t>(n * d));
            device_.zero(d_gathered_.data(), d_gathered_.size() * sizeof(T));
            rms_norm_backward(device_, gathered_.data(), d, p.value(p.norm), normed_.data(), d,
                              d_gathered_.data(), d, inverse_rms_.data(), p.grad(p.norm), n, d);
            d_rows = d_gathered_.data();
        }
        scatter_rows(device_, d_rows, at, dh, n, d);
    }

    /// The logits' gradient in T: the reference rounds it.
    const T* rounded_logits(std::int64_t n) {
        if constexpr (std::same_as<T, float>) {
            return logits_.data();
        } else {
            rounded_.resize(static_cast<std::size_t>(n));
            round_into(device_, logits_.data(), rounded_.data(), n);
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

    const Dev& device_;
    const ModelConfig& c_;
    const Eagle3Options& o_;
    const VocabMap& map_;
    StepMetrics metrics_;
    ArenaArray<T> states_, gathered_, normed_, d_gathered_, rounded_;
    ArenaArray<float> teacher_, tile_, logits_, inverse_rms_;
    ArenaArray<TeacherRow> teacher_rows_;
    ArenaArray<KeptRow> kept_;
    ArenaArray<std::int64_t> used_, at_;
    ArenaArray<DraftRow> draft_rows_;
    // The host's: the same of the current tile, and what goes over all tiles.
    ArenaArray<TeacherRow> host_teacher_rows_;
    ArenaArray<KeptRow> host_kept_;
    ArenaArray<std::int64_t> host_used_, host_at_, count_;
    ArenaArray<DraftRow> host_draft_rows_;
    ArenaArray<double> log_acceptance_;
    ArenaArray<StepWeights> weights_;
    RoundingScratch scratch_;
};

}  // namespace eyas
