#include <atomic>
#include <limits>

#include "eyas/device/cpu.hpp"
#include "eyas/ops/attention.hpp"
#include "eyas/ops/attention_backward.hpp"
#include "finite_difference.hpp"

using namespace eyas;
using namespace eyas::test;

namespace {
using Starts = std::vector<std::vector<std::int64_t>>;  // of each row's documents

struct Problem {
    std::int64_t batch = 2, tokens, heads = 4, groups = 2, width = 6, step;
    std::vector<float> q;
    std::vector<std::vector<float>> k, v;
    std::vector<std::int64_t> mask, document;
    std::vector<const float*> keys, values;

    Problem(std::int64_t tokens_, std::int64_t step_, const Starts& starts = {{0}, {0}})
        : tokens(tokens_), step(step_) {
        const auto n = static_cast<std::size_t>(batch * tokens);
        q = random_values(n * 24, 1);
        for (std::int64_t j = 0; j <= step; ++j) {
            k.push_back(random_values(n * 12, 10 + static_cast<unsigned>(j)));
            v.push_back(random_values(n * 12, 20 + static_cast<unsigned>(j)));
        }
        mask.assign(n, 1);
        mask[n - 1] = mask[n - 2] = 0;  // the second sample is padded
        for (const auto& row : starts)
            for (std::int64_t t = 0; t < tokens; ++t)
                document.push_back(*(std::ranges::upper_bound(row, t) - 1));
        for (auto& x : k) keys.push_back(x.data());
        for (auto& x : v) values.push_back(x.data());
    }
    TttAttention<float> view() const {
        return {batch,    tokens, heads,       groups,        width, step,           mask.data(),
                q.data(), 24,     keys.data(), values.data(), 12,    document.data()};
    }
};

/// What forward and backward write: the gradients of step 0's keys and values as slices [B, H, T,
/// E], those of later steps [B*T, G*E].
struct Results {
    std::vector<float> out, log_sum, dq, dk_first, dv_first;
    std::vector<std::vector<float>> dk, dv;

    template <class Device>
    Results(const Device& device, const Problem& p, const std::vector<float>& d_out)
        : out(p.q.size()),
          log_sum(static_cast<std::size_t>(p.batch * p.heads * p.tokens)),
          dq(p.q.size()),
          dk_first(log_sum.size() * static_cast<std::size_t>(p.width)),
          dv_first(dk_first.size()),
          dk(p.k.size(), std::vector<float>(p.k[0].size())),
          dv(dk) {
        std::vector<float> d_scores(log_sum.size() * static_cast<std::size_t>(p.step)),
            weights(d_scores.size());
        const DiagonalColumns diagonal{d_scores.data(), weights.data()};
        std::vector<float*> dk_p, dv_p;
        for (auto& x : dk) dk_p.push_back(x.data());
        for (auto& x : dv) dv_p.push_back(x.data());
        ttt_attention(device, p.view(), out.data(), 24, log_sum.data());
        ttt_attention_backward(device, p.view(), log_sum.data(), d_out.data(), 24, dq.data(), 24,
                               dk_first.data(), dv_first.data(), diagonal);
        ttt_attention_backward_diagonal(device, p.view(), diagonal, d_out.data(), 24, dk_p.data(),
                                        dv_p.data());
        reduce_kv_gradient(device, p.view(), dk_first.data(), dk[0].data(), 12);
        reduce_kv_gradient(device, p.view(), dv_first.data(), dv[0].data(), 12);
    }
};

/// Cpu that counts the multiplications of its products.
struct CountingCpu : Cpu {
    template <class T>
    void matmul(const Matmul<T, float>& x) const {
        products += x.m * x.n * x.k;
        Cpu::matmul(x);
    }
    static inline std::atomic<std::int64_t> products{0};
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
                for (std::int64_t s = p.document[row]; s <= t; ++s)
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
    const auto starts = GENERATE(Starts{{0}, {0}}, Starts{{0, 70}, {0, 1, 60, 128}});
    for (const std::int64_t tokens : {130, 600}) {  // 64 rows a tile, 256 keys a block
        const Problem p(tokens, 2, starts);
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
    const auto starts = GENERATE(Starts{{0}, {0}}, Starts{{0, 2}, {0, 3}});
    for (std::int64_t step : {0, 2}) {
        Problem p(5, step, starts);
        const Cpu cpu;
        const auto mix = random_values(p.q.size(), 30);
        std::vector<float> out(p.q.size()), log_sum(2 * 4 * 5);
        const auto loss = [&] {
            ttt_attention(cpu, p.view(), out.data(), 24, log_sum.data());
            return weighted(out, mix);
        };
        const Results r(cpu, p, mix);
        require_gradient(p.q, r.dq, loss);
        for (std::size_t j = 0; j < p.k.size(); ++j) {
            require_gradient(p.k[j], r.dk[j], loss);
            require_gradient(p.v[j], r.dv[j], loss);
        }
    }
}

TEST_CASE(
    "attention backward agrees with the definition's slope across borders of blocks of keys") {
    Problem p(600, 1, GENERATE(Starts{{0}, {0}}, Starts{{0, 40}, {0, 300, 310, 598}}));
    const auto mix = random_values(p.q.size(), 30);
    const Results r(Cpu{}, p, mix);
    struct {
        std::vector<float>* values;
        const std::vector<float>* gradient;
    } const inputs[] = {{&p.q, &r.dq},
                        {&p.k[0], &r.dk[0]},
                        {&p.v[0], &r.dv[0]},
                        {&p.k[1], &r.dk[1]},
                        {&p.v[1], &r.dv[1]}};
    for (const auto& input : inputs) {
        // Along its own direction the gradient is the slope of the loss. A central difference is
        // off by h^2/6 times the third derivative and by four times that at 2 h, so how far the two
        // lie apart is more than the error at h. To that fp32 adds: weights are off by 1e-6
        // relative (as above), and each moved input is rounded by 6e-8, which along the direction
        // adds up to 6e-8 / h.
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
        const auto slope = [&](double h) { return (loss_at(h) - loss_at(-h)) / (2 * h); };
        const double at_h = slope(0.02), truncation = std::abs(slope(0.04) - at_h);
        *input.values = original;
        CAPTURE(length, at_h, truncation);
        CHECK(truncation < 1e-3 * length);  // else the next says little
        CHECK(std::abs(at_h - length) <= truncation + 1e-5 * length);
    }
}

TEST_CASE("whatever a document holds, no bit of another's results or gradients changes") {
    constexpr std::size_t tokens = 90, begin = 20, end = 85;
    Problem p(tokens, 2, {{0, begin, end}, {0, 70}});
    const auto d_out = random_values(p.q.size(), 30);
    const Results before(Cpu{}, p, d_out);
    // Rows 20 to 84 of the first row become what no sum survives.
    std::fill_n(p.q.begin() + begin * 24, (end - begin) * 24, std::nanf(""));
    for (std::size_t j = 0; j < p.k.size(); ++j)
        for (auto* x : {&p.k[j], &p.v[j]})
            std::fill_n(x->begin() + begin * 12, (end - begin) * 12,
                        std::numeric_limits<float>::infinity());
    const Results after(Cpu{}, p, d_out);
    std::size_t differ = 0;
    // Of [B, heads, T, width]; rows [B*T, …] are [B, 1, T, …].
    const auto same = [&](const std::vector<float>& a, const std::vector<float>& b,
                          std::size_t heads, std::size_t width) {
        for (std::size_t i = 0; i < a.size(); ++i) {
            const auto t = i / width % tokens;
            const bool its_own = i < heads * tokens * width && t >= begin && t < end;
            const bool equal =
                std::bit_cast<std::uint32_t>(a[i]) == std::bit_cast<std::uint32_t>(b[i]);
            if (!its_own) REQUIRE(equal);
            differ += !equal;
        }
    };
    same(before.out, after.out, 1, 24);
    same(before.dq, after.dq, 1, 24);
    same(before.log_sum, after.log_sum, 4, 1);
    same(before.dk_first, after.dk_first, 4, 6);
    same(before.dv_first, after.dv_first, 4, 6);
    for (std::size_t j = 0; j < p.k.size(); ++j) {
        same(before.dk[j], after.dk[j], 1, 12);
        same(before.dv[j], after.dv[j], 1, 12);
    }
    CHECK(differ > (end - begin) * 24);  // it was felt where it may be
}

TEST_CASE("documents cost as much as each of them alone") {
    const auto cost = [](std::int64_t tokens, const Starts& starts) {
        const Problem p(tokens, 1, starts);
        CountingCpu::products = 0;
        const Results results(CountingCpu{}, p, random_values(p.q.size(), 30));
        return CountingCpu::products.load();
    };
    const auto each = cost(70, {{0}, {0}});
    CHECK(cost(280, {{0, 70, 140, 210}, {0, 70, 140, 210}}) == 4 * each);
    CHECK(cost(280, {{0}, {0}}) > 9 * each);
}
