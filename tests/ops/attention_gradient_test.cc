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
    std::size_t slices() const { return static_cast<std::size_t>(batch * heads * tokens * width); }
};

/// Everything that forward and backward write, as bits.
template <class Device>
std::vector<std::uint32_t> bits_of_all(const Device& device, const Problem& p,
                                       const std::vector<float>& d_out) {
    std::vector<float> out(p.q.size()), dq(p.q.size());
    std::vector<float> log_sum(static_cast<std::size_t>(p.batch * p.heads * p.tokens));
    std::vector<std::vector<float>> dk(p.k.size(), std::vector<float>(p.slices())), dv = dk;
    std::vector<float*> dk_p, dv_p;
    for (auto& x : dk) dk_p.push_back(x.data());
    for (auto& x : dv) dv_p.push_back(x.data());
    ttt_attention(device, p.view(), out.data(), 24, log_sum.data());
    ttt_attention_backward(device, p.view(), log_sum.data(), d_out.data(), 24, dq.data(), 24,
                           dk_p.data(), dv_p.data());
    std::vector<std::uint32_t> bits;
    const auto add = [&](const std::vector<float>& x) {
        for (float v : x) bits.push_back(std::bit_cast<std::uint32_t>(v));
    };
    add(out), add(dq), add(log_sum);
    for (std::size_t j = 0; j < dk.size(); ++j) add(dk[j]), add(dv[j]);
    return bits;
}

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

TEST_CASE("attention equals its definition across tile borders") {
    const auto starts = GENERATE(Starts{{0}, {0}},  // tiles of 64 rows: two borders
                                 Starts{{0, 70}, {0, 1, 60, 128}});
    const Problem p(130, 2, starts);
    std::vector<float> out(p.q.size()), log_sum(static_cast<std::size_t>(2 * 4 * 130));
    ttt_attention(Cpu{}, p.view(), out.data(), 24, log_sum.data());
    const auto want = naive(p);
    // Scores of order 5 in fp32 are off by 5 * 2^-23, so weights by 1e-6 relative, outputs of order
    // 1 by a few.
    for (std::size_t i = 0; i < out.size(); ++i) REQUIRE(std::abs(out[i] - want[i]) < 1e-5);
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
        loss();
        std::vector<float> dq(p.q.size());
        std::vector<std::vector<float>> dk(p.k.size(), std::vector<float>(p.slices())), dv = dk;
        std::vector<float*> dk_p, dv_p;
        for (auto& x : dk) dk_p.push_back(x.data());
        for (auto& x : dv) dv_p.push_back(x.data());
        ttt_attention_backward(cpu, p.view(), log_sum.data(), mix.data(), 24, dq.data(), 24,
                               dk_p.data(), dv_p.data());
        require_gradient(p.q, dq, loss);
        for (std::size_t j = 0; j < p.k.size(); ++j) {
            std::vector<float> reduced(p.k[j].size());
            reduce_kv_gradient(cpu, p.view(), dk[j].data(), reduced.data(), 12);
            require_gradient(p.k[j], reduced, loss);
            reduce_kv_gradient(cpu, p.view(), dv[j].data(), reduced.data(), 12);
            require_gradient(p.v[j], reduced, loss);
        }
    }
}

TEST_CASE("whatever a document holds, no bit of another's results or gradients changes") {
    constexpr std::int64_t tokens = 90;
    Problem p(tokens, 2, {{0, 20, 85}, {0, 70}});
    const auto d_out = random_values(p.q.size(), 30);
    const auto before = bits_of_all(Cpu{}, p, d_out);
    // Rows 20 to 84 of the first row become what no sum survives.
    for (std::size_t t = 20; t < 85; ++t) {
        std::fill_n(p.q.begin() + static_cast<std::ptrdiff_t>(t * 24), 24, std::nanf(""));
        for (std::size_t j = 0; j < p.k.size(); ++j)
            for (auto* x : {&p.k[j], &p.v[j]})
                std::fill_n(x->begin() + static_cast<std::ptrdiff_t>(t * 12), 12,
                            std::numeric_limits<float>::infinity());
    }
    const auto after = bits_of_all(Cpu{}, p, d_out);
    const auto changed = [&](std::size_t at) {  // whether entry `at` is of a changed row
        constexpr std::size_t rows = 2 * tokens * 24, sums = 2 * 4 * tokens;
        if (at < 2 * rows) return at % rows / 24 >= 20 && at % rows / 24 < 85;
        at -= 2 * rows;  // [B, H, T], then [B, H, T, E] again and again
        const auto head = at < sums ? at / tokens : (at - sums) / (tokens * 6) % 8;
        const auto t = at < sums ? at % tokens : (at - sums) / 6 % tokens;
        return head < 4 && t >= 20 && t < 85;
    };
    std::size_t differ = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
        if (!changed(i)) REQUIRE(after[i] == before[i]);
        differ += after[i] != before[i];
    }
    CHECK(differ > 65 * 24);  // it was felt where it may be
}

TEST_CASE("documents cost as much as each of them alone") {
    const auto cost = [](std::int64_t tokens, const Starts& starts) {
        const Problem p(tokens, 1, starts);
        CountingCpu::products = 0;
        bits_of_all(CountingCpu{}, p, random_values(p.q.size(), 30));
        return CountingCpu::products.load();
    };
    const auto each = cost(70, {{0}, {0}});
    CHECK(cost(280, {{0, 70, 140, 210}, {0, 70, 140, 210}}) == 4 * each);
    CHECK(cost(280, {{0}, {0}}) > 9 * each);
}
