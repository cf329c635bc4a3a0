#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <vector>

#include "eyas/core/arena.hpp"
#include "eyas/model/eagle3_batch.hpp"
#include "eyas/model/eagle3_parameters.hpp"
#include "eyas/model/step_activations.hpp"
#include "eyas/ops/attention.hpp"
#include "eyas/ops/attention_backward.hpp"
#include "eyas/ops/embedding.hpp"
#include "eyas/ops/linear.hpp"
#include "eyas/ops/rms_norm.hpp"
#include "eyas/ops/rotary.hpp"
#include "eyas/ops/rows.hpp"
#include "eyas/ops/swiglu.hpp"

namespace eyas {

/// The draft's single decoder layer at one TTT step, forward and backward.
/// Input of a row: [rms(embedding), rms(hidden)], 2D wide. Source: EAGLE-3 (arXiv 2503.01840).
/// Owns scratch only; one thread drives it.
template <Device Dev, class T>
class DecoderStep {
public:
    DecoderStep(const Dev& device, const ModelConfig& config, Activations policy)
        : device_(device),
          c_(config),
          policy_(policy),
          epsilon_(static_cast<float>(config.rms_norm_eps)) {
        for (auto* pointers : {&keys_, &values_}) pointers->reserve(Eagle3Options::longest_ttt);
        for (auto* pointers : {&dk_, &dv_}) pointers->reserve(Eagle3Options::longest_ttt);
    }

    std::int64_t q_width() const { return c_.num_attention_heads * c_.head_dim; }
    std::int64_t kv_width() const { return c_.num_key_value_heads * c_.head_dim; }
    std::int64_t qkv_width() const { return q_width() + 2 * kv_width(); }

    /// Memory for up to `n` rows: of what `steps` keep, and of the layer's own scratch.
    void lay_out(Arena& arena, std::vector<StepActivations<T>>& steps, std::int64_t n) {
        const auto d = c_.hidden_size, f = c_.intermediate_size, q = q_width();
        lay_out_activations(arena, steps, c_, policy_, n);
        constexpr const char* gradients = "gradients of keys and values";
        for (auto* g : {&dk_first_, &dv_first_}) arena.give(*g, n * q, gradients);
        const auto later = static_cast<std::int64_t>(steps.size()) - 1;
        for (auto* diagonal : {&d_scores_, &probabilities_})
            arena.give(*diagonal, n * c_.num_attention_heads * later, gradients);
        constexpr const char* scratch = "scratch of the layer";
        arena.give(input_, n * 2 * d, scratch), arena.give(embedded_, n * d, scratch);
        arena.give(normed_, n * d, scratch), arena.give(activated_, n * f, scratch);
        arena.give(d_attended_, n * q, scratch), arena.give(d_qkv_, n * qkv_width(), scratch);
        if (!std::same_as<T, float>)
            arena.give(scratch_, n * std::max({2 * d, qkv_width(), 2 * f}), scratch);
    }

    /// Computes steps[i] from `hidden` [N, D]. `embedding_table` [V, D].
    void forward(const Eagle3Parameters<T>& p, const T* embedding_table,
                 const Eagle3Batch<T>& batch, const T* hidden, const RotaryRows& angles,
                 std::vector<StepActivations<T>>& steps, std::int64_t i) {
        auto& s = steps[static_cast<std::size_t>(i)];
        const auto n = batch.rows(), d = c_.hidden_size, f = c_.intermediate_size;
        s.hidden.resize(static_cast<std::size_t>(n * d));
        if (recomputes()) s.kv.resize(static_cast<std::size_t>(n * 2 * kv_width()));
        up_to_gates(p, embedding_table, batch, hidden, angles, steps, i);
        swiglu(device_, s.gate_up.data(), activated_.data(), n, f);
        linear_residual(device_, activated_.data(), p.weight(p.down), s.middle.data(),
                        s.hidden.data(), n, scratch_);
    }

    /// Call before the first backward of a batch: clears the key and value gradients of every step.
    void begin_backward(std::vector<StepActivations<T>>& steps, std::int64_t rows) {
        const auto clear = [this](ArenaArray<float>& g, std::int64_t n) {
            g.resize(static_cast<std::size_t>(n));
            device_.zero(g.data(), g.size() * sizeof(float));
        };
        for (auto* g : {&dk_first_, &dv_first_}) clear(*g, rows * q_width());
        for (std::size_t j = 1; j < steps.size(); ++j)
            for (auto* g : {&steps[j].dk, &steps[j].dv}) clear(*g, rows * kv_width());
    }

    /// `dh` [N, D] holds the gradient at the step's result and becomes the one at its input
    /// `hidden`. Steps must be taken from last to first. gate_up of the step is consumed.
    /// `is_final` hears which gradients nothing is added to afterwards.
    void backward(Eagle3Parameters<T>& p, const T* embedding_table, const Eagle3Batch<T>& batch,
                  const T* hidden, const RotaryRows& angles, std::vector<StepActivations<T>>& steps,
                  std::int64_t i, T* dh, const FinalSlots& is_final) {
        auto& s = steps[static_cast<std::size_t>(i)];
        if (recomputes()) up_to_gates(p, embedding_table, batch, hidden, angles, steps, i);
        backward_mlp(p, s, batch.rows(), dh, is_final);
        backward_attention(p, batch, angles, steps, i, dh, is_final);
        backward_input(p, embedding_table, hidden, s, batch.rows(), dh, is_final);
    }

private:
    bool recomputes() const { return policy_ == Activations::Recompute; }

    void resize(StepActivations<T>& s, std::int64_t n) {
        const auto to = [n](auto& v, std::int64_t width) {
            v.resize(static_cast<std::size_t>(n * width));
        };
        const auto d = c_.hidden_size, f = c_.intermediate_size;
        to(s.ids, 1), to(s.qkv, qkv_width()), to(s.attended, q_width()), to(s.middle, d),
            to(s.gate_up, 2 * f);
        to(s.log_sum, c_.num_attention_heads);
        to(s.rms_embedding, 1), to(s.rms_hidden, 1), to(s.rms_middle, 1);
        to(input_, 2 * d), to(embedded_, d), to(normed_, d), to(activated_, f);
    }

    /// Everything of steps[i] but its result: forward, and again before its backward where it was
    /// not kept.
    void up_to_gates(const Eagle3Parameters<T>& p, const T* embedding_table,
                     const Eagle3Batch<T>& batch, const T* hidden, const RotaryRows& angles,
                     std::vector<StepActivations<T>>& steps, std::int64_t i) {
        auto& s = steps[static_cast<std::size_t>(i)];
        const auto n = batch.rows();
        resize(s, n);
        shift_left(device_, batch.ids.data(), s.ids.data(), batch.document.data(), batch.batch,
                   batch.tokens, i + 1, 0);
        input(p, embedding_table, hidden, s, n);
        linear(device_, input_.data(), p.weight(p.qkv), s.qkv.data(), n, false, scratch_);
        rotary(device_, s.qkv.data(), n, qkv_width(),
               c_.num_attention_heads + c_.num_key_value_heads, c_.head_dim, angles, 1.f);
        if (recomputes())
            copy_columns(device_, s.qkv.data() + q_width(), qkv_width(), s.kv.data(),
                         2 * kv_width(), n, 2 * kv_width());
        ttt_attention(device_, attention(batch, steps, i), s.attended.data(), q_width(),
                      s.log_sum.data());
        gate_up(p, hidden, s, n);
    }

    /// input_ [N, 2D]: the two normalised halves.
    void input(const Eagle3Parameters<T>& p, const T* table, const T* hidden, StepActivations<T>& s,
               std::int64_t n) {
        const auto d = c_.hidden_size;
        embedding(device_, table, s.ids.data(), embedded_.data(), n, d);
        rms_norm(device_, embedded_.data(), d, p.value(p.input_norm), input_.data(), 2 * d,
                 s.rms_embedding.data(), n, d, epsilon_);
        rms_norm(device_, hidden, d, p.value(p.hidden_norm), input_.data() + d, 2 * d,
                 s.rms_hidden.data(), n, d, epsilon_);
    }

    /// From attention's result to the gates: middle, its norm, gate_up.
    void gate_up(const Eagle3Parameters<T>& p, const T* hidden, StepActivations<T>& s,
                 std::int64_t n) {
        const auto d = c_.hidden_size;
        linear_residual(device_, s.attended.data(), p.weight(p.o), hidden, s.middle.data(), n,
                        scratch_);
        rms_norm(device_, s.middle.data(), d, p.value(p.post_norm), normed_.data(), d,
                 s.rms_middle.data(), n, d, epsilon_);
        linear(device_, normed_.data(), p.weight(p.gate_up), s.gate_up.data(), n, false, scratch_);
    }

    TttAttention<T> attention(const Eagle3Batch<T>& batch,
                              const std::vector<StepActivations<T>>& steps, std::int64_t i) {
        keys_.clear(), values_.clear();
        for (std::int64_t j = 0; j <= i; ++j) {
            const auto& s = steps[static_cast<std::size_t>(j)];
            const T* k = recomputes() ? s.kv.data() : s.qkv.data() + q_width();
            keys_.push_back(k);
            values_.push_back(k + kv_width());
        }
        return {batch.batch,
                batch.tokens,
                c_.num_attention_heads,
                c_.num_key_value_heads,
                c_.head_dim,
                i,
                batch.mask.data(),
                steps[static_cast<std::size_t>(i)].qkv.data(),
                qkv_width(),
                keys_.data(),
                values_.data(),
                recomputes() ? 2 * kv_width() : qkv_width(),
                batch.document.data(),
                batch.leading_keys,
                steps[static_cast<std::size_t>(i)].attended.data(),
                q_width()};
    }

    void backward_mlp(Eagle3Parameters<T>& p, StepActivations<T>& s, std::int64_t n, T* dh,
                      const FinalSlots& is_final) {
        const auto d = c_.hidden_size, f = c_.intermediate_size;
        swiglu(device_, s.gate_up.data(), activated_.data(), n, f);
        linear_backward_weight(device_, dh, d, activated_.data(), f, p.grad(p.down), n, f, d);
        is_final(p.down);
        linear_backward_input(device_, dh, d, p.value(p.down), activated_.data(), f, n, f, d, false,
                              scratch_);
        swiglu_backward(device_, s.gate_up.data(), activated_.data(), n, f);
        rms_norm(device_, s.middle.data(), d, p.value(p.post_norm), normed_.data(), d,
                 s.rms_middle.data(), n, d, epsilon_);
        linear_backward_weight(device_, s.gate_up.data(), 2 * f, normed_.data(), d,
                               p.grad(p.gate_up), n, d, 2 * f);
        is_final(p.gate_up);
        linear_backward_input(device_, s.gate_up.data(), 2 * f, p.value(p.gate_up), normed_.data(),
                              d, n, d, 2 * f, false, scratch_);
        rms_norm_backward(device_, s.middle.data(), d, p.value(p.post_norm), normed_.data(), d, dh,
                          d, s.rms_middle.data(), p.grad(p.post_norm), n, d);
        is_final(p.post_norm);
    }

    /// Leaves the gradient at q, k, v (before rotation) in d_qkv_ and adds the residual part to dh.
    void backward_attention(Eagle3Parameters<T>& p, const Eagle3Batch<T>& batch,
                            const RotaryRows& angles, std::vector<StepActivations<T>>& steps,
                            std::int64_t i, const T* dh, const FinalSlots& is_final) {
        auto& s = steps[static_cast<std::size_t>(i)];
        const auto n = batch.rows(), d = c_.hidden_size, q = q_width();
        d_attended_.resize(static_cast<std::size_t>(n * q));
        d_qkv_.resize(static_cast<std::size_t>(n * qkv_width()));
        linear_backward_weight(device_, dh, d, s.attended.data(), q, p.grad(p.o), n, q, d);
        is_final(p.o);
        linear_backward_input(device_, dh, d, p.value(p.o), d_attended_.data(), q, n, q, d, false,
                              scratch_);
        const auto a = attention(batch, steps, i);
        const auto diagonal = static_cast<std::size_t>(n * c_.num_attention_heads * i);
        d_scores_.resize(diagonal), probabilities_.resize(diagonal);
        const DiagonalColumns columns{d_scores_.data(), probabilities_.data()};
        ttt_attention_backward(device_, a, s.log_sum.data(), d_attended_.data(), q, d_qkv_.data(),
                               qkv_width(), dk_first_.data(), dv_first_.data(), columns);
        dk_.assign(1, nullptr), dv_.assign(1, nullptr);  // the block's are elsewhere
        for (std::int64_t j = 1; j <= i; ++j) {
            dk_.push_back(steps[static_cast<std::size_t>(j)].dk.data());
            dv_.push_back(steps[static_cast<std::size_t>(j)].dv.data());
        }
        if (i > 0)
            ttt_attention_backward_diagonal(device_, a, columns, d_attended_.data(), q, dk_.data(),
                                            dv_.data());
        kv_gradient(a, i == 0 ? dk_first_ : s.dk, i, d_qkv_.data() + q);
        kv_gradient(a, i == 0 ? dv_first_ : s.dv, i, d_qkv_.data() + q + kv_width());
        rotary(device_, d_qkv_.data(), n, qkv_width(),
               c_.num_attention_heads + c_.num_key_value_heads, c_.head_dim, angles, -1.f);
    }

    /// What a step's keys or values got, into rows of d_qkv_.
    void kv_gradient(const TttAttention<T>& a, const ArenaArray<float>& from, std::int64_t i,
                     T* to) {
        if (i == 0) return reduce_kv_gradient(device_, a, from.data(), to, qkv_width());
        round_rows(device_, from.data(), to, qkv_width(), a.batch * a.tokens, kv_width());
    }

    void backward_input(Eagle3Parameters<T>& p, const T* table, const T* hidden,
                        StepActivations<T>& s, std::int64_t n, T* dh, const FinalSlots& is_final) {
        const auto d = c_.hidden_size;
        if (!recomputes()) input(p, table, hidden, s, n);
        linear_backward_weight(device_, d_qkv_.data(), qkv_width(), input_.data(), 2 * d,
                               p.grad(p.qkv), n, 2 * d, qkv_width());
        is_final(p.qkv);
        linear_backward_input(device_, d_qkv_.data(), qkv_width(), p.value(p.qkv), input_.data(),
                              2 * d, n, 2 * d, qkv_width(), false, scratch_);
        rms_norm_backward(device_, embedded_.data(), d, p.value(p.input_norm), input_.data(), 2 * d,
                          static_cast<T*>(nullptr), d, s.rms_embedding.data(), p.grad(p.input_norm),
                          n, d);
        is_final(p.input_norm);
        rms_norm_backward(device_, hidden, d, p.value(p.hidden_norm), input_.data() + d, 2 * d, dh,
                          d, s.rms_hidden.data(), p.grad(p.hidden_norm), n, d);
        is_final(p.hidden_norm);
    }

    const Dev& device_;
    const ModelConfig& c_;
    Activations policy_;
    float epsilon_;
    ArenaArray<T> input_, embedded_, normed_, activated_, d_attended_, d_qkv_;
    std::vector<const T*> keys_, values_;
    ArenaArray<float> dk_first_, dv_first_;       // [B, H, T, E] of step 0
    ArenaArray<float> d_scores_, probabilities_;  // DiagonalColumns of the step under way
    std::vector<float*> dk_, dv_;
    RoundingScratch scratch_;
};

}  // namespace eyas
