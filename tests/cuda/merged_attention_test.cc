// The mathematics of ops/block/attention_sdpa.hpp in double: a softmax over the causal keys, merged
// with the diagonal's by their log-sums, beside one softmax over all; and the causal keys' backward
// fed with the merged result and log-sum.
#include <catch2/catch.hpp>
#include <limits>
#include <random>

#include "eyas/device/cpu.hpp"
#include "eyas/ops/attention.hpp"
#include "eyas/ops/attention_backward.hpp"
#include "joint_attention.hpp"

using namespace eyas;

namespace {
std::vector<double> numbers(std::mt19937& random, std::int64_t n, double scale) {
    std::vector<double> v;
    for (std::int64_t i = 0; i < n; ++i)
        v.push_back(scale * (static_cast<double>(random() % 4096) / 2048 - 1));
    return v;
}

test::JointAttention make(std::int64_t step) {
    std::mt19937 random(11);
    const std::int64_t rows = 2 * 13;
    test::JointAttention a{13, 4, 2, 8, step, {13, 5}, {}, {}, {}, {}};
    a.q = numbers(random, rows * 32, 3), a.d_out = numbers(random, rows * 32, 1);
    for (std::int64_t j = 0; j <= step; ++j) {
        a.k.push_back(numbers(random, rows * 16, 3));
        a.v.push_back(numbers(random, rows * 16, 1));
    }
    return a;
}

double dot(const double* x, const double* y, std::int64_t n) {
    double sum = 0;
    for (std::int64_t e = 0; e < n; ++e) sum += x[e] * y[e];
    return sum;
}

/// Merges the diagonal into step 0's attention, and adds its gradients to those of the causal keys.
test::JointAttention::Result merged(const test::JointAttention& a) {
    auto causal = a;
    causal.step = 0;
    auto r = causal.compute(0);  // out and log_sum of the causal keys
    for (auto* g : {&r.dk, &r.dv}) g->assign(a.k.size(), std::vector<double>(a.k[0].size(), 0));
    std::ranges::fill(r.dq, 0);
    const double scale = 1 / std::sqrt(static_cast<double>(a.width));
    for (std::int64_t i = 0; i < a.batch() * a.heads * a.tokens; ++i) {
        const auto t = i % a.tokens, h = i / a.tokens % a.heads, b = i / a.tokens / a.heads;
        const auto at = static_cast<std::size_t>(((b * a.tokens + t) * a.heads + h) * a.width);
        const auto key = [&](std::int64_t s) {
            return static_cast<std::size_t>(
                ((b * a.tokens + s) * a.groups + h / (a.heads / a.groups)) * a.width);
        };
        double& log_sum = r.log_sum[static_cast<std::size_t>(i)];
        std::vector<double> score;
        double top = log_sum;
        for (std::size_t j = 1; j < a.k.size(); ++j) {
            score.push_back(dot(&a.q[at], &a.k[j][key(t)], a.width) * scale);
            top = std::max(top, score.back());
        }
        double sum = std::exp(log_sum - top);
        for (double s : score) sum += std::exp(s - top);
        const double all = top + std::log(sum), keep = std::exp(log_sum - all);
        for (std::size_t e = 0; e < static_cast<std::size_t>(a.width); ++e) {
            r.out[at + e] *= keep;
            for (std::size_t j = 1; j < a.k.size(); ++j)
                r.out[at + e] += std::exp(score[j - 1] - all) * a.v[j][key(t) + e];
        }
        log_sum = all;
        const double delta = dot(&a.d_out[at], &r.out[at], a.width);
        const auto back = [&](std::size_t j, std::size_t k) {
            const double p = std::exp(dot(&a.q[at], &a.k[j][k], a.width) * scale - all);
            const double ds = p * (dot(&a.d_out[at], &a.v[j][k], a.width) - delta) * scale;
            for (std::size_t e = 0; e < static_cast<std::size_t>(a.width); ++e) {
                r.dq[at + e] += ds * a.k[j][k + e];
                r.dk[j][k + e] += ds * a.q[at + e];
                r.dv[j][k + e] += p * a.d_out[at + e];
            }
        };
        for (std::int64_t s = 0; s <= t && s < a.keys[static_cast<std::size_t>(b)]; ++s)
            back(0, key(s));
        for (std::size_t j = 1; j < a.k.size(); ++j) back(j, key(t));
    }
    return r;
}

/// Scores are below 90 and have errors of some 2^-53 of that, which exp makes relative ones; sums
/// have at most 26 * 8 terms of the size of a few units.
constexpr double bound = 1e-12;
void same(const std::vector<double>& got, const std::vector<double>& want, double most) {
    double far = got.size() == want.size() ? 0 : std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < want.size(); ++i)
        if (const double d = std::abs(got[i] - want[i]); !(d <= far)) far = d;
    CHECK(far <= most);
}
}  // namespace

TEST_CASE("attention merged by log-sums is the joint softmax, forward and backward") {
    for (const std::int64_t step : {0, 1, 6, 15}) {
        const auto a = make(step);
        const auto want = a.compute(0);
        const auto got = merged(a);
        same(got.out, want.out, bound), same(got.log_sum, want.log_sum, bound);
        same(got.dq, want.dq, bound);
        for (std::size_t j = 0; j < a.k.size(); ++j)
            same(got.dk[j], want.dk[j], bound), same(got.dv[j], want.dv[j], bound);
    }
}

TEST_CASE("the joint softmax in double is what the op computes in fp32") {
    const auto a = make(3);
    const auto want = a.compute(0);
    const auto narrow = [](const std::vector<double>& v) {
        return std::vector<float>(v.begin(), v.end());
    };
    const auto q = narrow(a.q), g = narrow(a.d_out);
    std::vector<std::vector<float>> k, v;
    std::vector<const float*> pk, pv;
    for (std::size_t j = 0; j < a.k.size(); ++j)
        k.push_back(narrow(a.k[j])), v.push_back(narrow(a.v[j]));
    for (std::size_t j = 0; j < a.k.size(); ++j)
        pk.push_back(k[j].data()), pv.push_back(v[j].data());
    std::vector<std::int64_t> mask;
    for (const auto n : a.keys)
        for (std::int64_t t = 0; t < a.tokens; ++t) mask.push_back(t < n);
    const TttAttention<float> x{a.batch(),   a.tokens, a.heads, a.groups,  a.width,   a.step,
                                mask.data(), q.data(), 32,      pk.data(), pv.data(), 16};
    const auto rows = static_cast<std::size_t>(a.batch() * a.tokens);
    std::vector<float> out(rows * 32), dq(rows * 32), dk(rows * 32), dv(rows * 32),
        log_sum(rows * 4), ds(rows * 12), p(rows * 12);
    const Cpu cpu;
    ttt_attention(cpu, x, out.data(), 32, log_sum.data());
    ttt_attention_backward(cpu, x, log_sum.data(), g.data(), 32, dq.data(), 32, dk.data(),
                           dv.data(), DiagonalColumns{ds.data(), p.data()});
    const auto wide = [](const std::vector<float>& f) {
        return std::vector<double>(f.begin(), f.end());
    };
    // 90 * 2^-24 and some units of exp, relative; gradients have sums of products of 3.
    same(wide(out), want.out, 3e-5), same(wide(log_sum), want.log_sum, 3e-5);
    same(wide(dq), want.dq, 3e-4);
}
