#include "eyas/device/cpu.hpp"
#include "eyas/ops/attention.hpp"
#include "eyas/ops/attention_backward.hpp"
#include "finite_difference.hpp"

using namespace eyas;
using namespace eyas::test;

namespace {
struct Problem {
    std::int64_t batch = 2, tokens, heads = 4, groups = 2, width = 6, step;
    std::vector<float> q;
    std::vector<std::vector<float>> k, v;
    std::vector<std::int64_t> mask;
    std::vector<const float*> keys, values;

    Problem(std::int64_t tokens_, std::int64_t step_) : tokens(tokens_), step(step_) {
        const auto n = static_cast<std::size_t>(batch * tokens);
        q = random_values(n * 24, 1);
        for (std::int64_t j = 0; j <= step; ++j) {
            k.push_back(random_values(n * 12, 10 + static_cast<unsigned>(j)));
            v.push_back(random_values(n * 12, 20 + static_cast<unsigned>(j)));
        }
        mask.assign(n, 1);
        mask[n - 1] = mask[n - 2] = 0;  // the second sample is padded
        for (auto& x : k) keys.push_back(x.data());
        for (auto& x : v) values.push_back(x.data());
    }
    TttAttention<float> view() const {
        return {batch,       tokens,   heads, groups,      width,         step,
                mask.data(), q.data(), 24,    keys.data(), values.data(), 12};
    }
};

/// The definition in double precision, a dense loop.
std::vector<double> naive(const Problem& p) {
    std::vector<double> out;
    for (std::int64_t b = 0; b < p.batch; ++b)
        for (std::int64_t t = 0; t < p.tokens; ++t)
            for (std::int64_t h = 0; h < p.heads; ++h) {
                const auto row = static_cast<std::size_t>(b * p.tokens + t),
                           g = static_cast<std::size_t>(h / 2) * 6;
                std::vector<double> score;
                std::vector<const float*> value;
                const auto add = [&](std::size_t j, std::size_t r) {
                    double s = 0;
                    for (std::size_t e = 0; e < 6; ++e)
                        s += static_cast<double>(
                                 p.q[row * 24 + static_cast<std::size_t>(h) * 6 + e]) *
                             p.k[j][r * 12 + g + e];
                    score.push_back(s / std::sqrt(6.0));
                    value.push_back(p.v[j].data() + r * 12 + g);
                };
                for (std::int64_t s = 0; s <= t; ++s)
                    if (p.mask[static_cast<std::size_t>(b * p.tokens + s)])
                        add(0, static_cast<std::size_t>(b * p.tokens + s));
                for (std::int64_t j = 1; j <= p.step; ++j) add(static_cast<std::size_t>(j), row);
                double sum = 0;
                for (double s : score) sum += std::exp(s);
                for (std::size_t e = 0; e < 6; ++e) {
                    double o = 0;
                    for (std::size_t c = 0; c < score.size(); ++c)
                        o += std::exp(score[c]) / sum * value[c][e];
                    out.push_back(o);
                }
            }
    return out;
}
}  // namespace

TEST_CASE("attention equals its definition across borders of tiles and of blocks of keys") {
    for (const std::int64_t tokens : {130, 600}) {  // 64 rows a tile, 256 keys a block
        const Problem p(tokens, 2);
        std::vector<float> out(p.q.size()), log_sum(static_cast<std::size_t>(2 * 4 * tokens));
        ttt_attention(Cpu{}, p.view(), out.data(), 24, log_sum.data());
        const auto want = naive(p);
        // Scores of order 5 in fp32 are off by 5 * 2^-23, so weights by 1e-6 relative, outputs of
        // order 1 by a few.
        for (std::size_t i = 0; i < out.size(); ++i) REQUIRE(std::abs(out[i] - want[i]) < 1e-5);
    }
}

TEST_CASE(
    "attention backward equals finite differences for q, K0, V0 and every diagonal key and value") {
    for (std::int64_t step : {0, 2}) {
        Problem p(5, step);
        const Cpu cpu;
        const auto mix = random_values(p.q.size(), 30);
        std::vector<float> out(p.q.size()), log_sum(2 * 4 * 5);
        const auto loss = [&] {
            ttt_attention(cpu, p.view(), out.data(), 24, log_sum.data());
            return weighted(out, mix);
        };
        loss();
        std::vector<float> dq(p.q.size());
        const auto slices = static_cast<std::size_t>(2 * 4 * 5 * 6);
        std::vector<float> dk_first(slices), dv_first(slices);
        std::vector<std::vector<float>> dk(p.k.size(), std::vector<float>(p.k[0].size())), dv = dk;
        std::vector<float*> dk_p, dv_p;
        for (auto& x : dk) dk_p.push_back(x.data());
        for (auto& x : dv) dv_p.push_back(x.data());
        std::vector<float> d_scores(static_cast<std::size_t>(2 * 4 * 5 * step)), w = d_scores;
        const DiagonalColumns diagonal{d_scores.data(), w.data()};
        ttt_attention_backward(cpu, p.view(), log_sum.data(), mix.data(), 24, dq.data(), 24,
                               dk_first.data(), dv_first.data(), diagonal);
        ttt_attention_backward_diagonal(cpu, p.view(), diagonal, mix.data(), 24, dk_p.data(),
                                        dv_p.data());
        reduce_kv_gradient(cpu, p.view(), dk_first.data(), dk[0].data(), 12);
        reduce_kv_gradient(cpu, p.view(), dv_first.data(), dv[0].data(), 12);
        require_gradient(p.q, dq, loss);
        for (std::size_t j = 0; j < p.k.size(); ++j) {
            require_gradient(p.k[j], dk[j], loss);
            require_gradient(p.v[j], dv[j], loss);
        }
    }
}

TEST_CASE(
    "attention backward agrees with the definition's slope across borders of blocks of keys") {
    Problem p(600, 1);
    const Cpu cpu;
    const auto mix = random_values(p.q.size(), 30);
    std::vector<float> out(p.q.size()), log_sum(2 * 4 * 600), dq(p.q.size());
    ttt_attention(cpu, p.view(), out.data(), 24, log_sum.data());
    std::vector<float> slices(static_cast<std::size_t>(2 * 4 * 600 * 6)), dv_slices = slices;
    std::vector<float> dk(p.k[0].size()), dv = dk, dk1 = dk, dv1 = dk;
    std::vector<float> d_scores(2 * 4 * 600), weights = d_scores;
    const DiagonalColumns diagonal{d_scores.data(), weights.data()};
    ttt_attention_backward(cpu, p.view(), log_sum.data(), mix.data(), 24, dq.data(), 24,
                           slices.data(), dv_slices.data(), diagonal);
    float* const dk_p[] = {nullptr, dk1.data()};
    float* const dv_p[] = {nullptr, dv1.data()};
    ttt_attention_backward_diagonal(cpu, p.view(), diagonal, mix.data(), 24, dk_p, dv_p);
    reduce_kv_gradient(cpu, p.view(), slices.data(), dk.data(), 12);
    reduce_kv_gradient(cpu, p.view(), dv_slices.data(), dv.data(), 12);
    struct {
        std::vector<float>* values;
        const std::vector<float>* gradient;
    } const inputs[] = {
        {&p.q, &dq}, {&p.k[0], &dk}, {&p.v[0], &dv}, {&p.k[1], &dk1}, {&p.v[1], &dv1}};
    for (const auto& input : inputs) {
        // Along the gradient the slope is its squared length. The step moves the loss by about
        // 1e-3 of the length; the definition in double is exact beside that, and its curvature
        // cancels in the difference of both sides.
        double length = 0;
        for (const float g : *input.gradient) length += static_cast<double>(g) * g;
        length = std::sqrt(length);
        const auto original = *input.values;
        const auto loss_at = [&](double step) {
            for (std::size_t i = 0; i < original.size(); ++i)
                (*input.values)[i] =
                    original[i] + static_cast<float>(step * (*input.gradient)[i] / length);
            double loss = 0;
            const auto o = naive(p);
            for (std::size_t i = 0; i < o.size(); ++i) loss += o[i] * mix[i];
            return loss;
        };
        const double step = 0.05;
        const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
        *input.values = original;
        CHECK(slope == Approx(length).epsilon(2e-3));
    }
}
