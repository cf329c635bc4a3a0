// Attention in bfloat16 by a library (SdpaLibrary) and the kernels that merge the diagonal, on the
// fake's streams, beside one softmax in double; what the library refuses; what fails.
#include <catch2/catch.hpp>
#include <limits>

#include "eyas/device/cuda.cuh"
#include "eyas/ops/block/all.hpp"
#include "fake_cuda.hpp"
#include "joint_attention.hpp"
#include "op_parity.hpp"
#include "reference_sdpa.hpp"

using namespace eyas;
using Told = std::vector<std::string>;

namespace {
std::vector<double> wide(const std::vector<BFloat16>& v) {
    std::vector<double> w;
    for (const auto x : v) w.push_back(static_cast<double>(static_cast<float>(x)));
    return w;
}

/// One TTT step's attention on the device, from and to rows that are wider than the heads.
struct Case {
    std::int64_t tokens, heads, groups, width, step;
    std::vector<std::int64_t> keys;
    test::JointAttention joint{tokens, heads, groups, width, step, keys, {}, {}, {}, {}};

    std::int64_t rows() const { return joint.batch() * tokens; }

    /// Rows of qkv [n, stride] from the parts, and the parts in double.
    std::vector<BFloat16> step_rows(test::Source& s, bool last) {
        const auto q = heads * width, kv = groups * width, stride = q + 2 * kv + 8;
        const auto all = s.of<BFloat16>(rows() * stride, 2.f);
        const auto part = [&](std::int64_t first, std::int64_t n) {
            std::vector<double> v;
            for (std::int64_t r = 0; r < rows(); ++r)
                for (std::int64_t e = first; e < first + n; ++e)
                    v.push_back(static_cast<double>(
                        static_cast<float>(all[static_cast<std::size_t>(r * stride + e)])));
            return v;
        };
        if (last) joint.q = part(0, q);
        joint.k.push_back(part(q, kv)), joint.v.push_back(part(q + kv, kv));
        return all;
    }
};

void within(const std::vector<double>& got, const std::vector<double>& want,
            const std::vector<double>& error, double fp32) {
    REQUIRE(got.size() == want.size());
    double worst = 0;  // the error in units of its bound
    for (std::size_t i = 0; i < want.size(); ++i)
        if (const double e = std::abs(got[i] - want[i]) / (error[i] + fp32); !(e <= worst))
            worst = e;
    CHECK(worst <= 1);
}

/// Sums in fp32 of some hundred terms of a few units, and exp_fast.
constexpr double of_fp32 = 2e-4;

void compare(const Cuda& d, Case c) {
    const auto q = c.heads * c.width, kv = c.groups * c.width, stride = q + 2 * kv + 8,
               n = c.rows();
    test::Source s;
    std::vector<test::Values<BFloat16>> qkv;
    for (std::int64_t j = 0; j <= c.step; ++j) qkv.emplace_back(d, c.step_rows(s, j == c.step));
    std::vector<const BFloat16*> k, v;
    for (auto& x : qkv) k.push_back(x.data() + q), v.push_back(x.data() + q + kv);
    std::vector<std::int64_t> seen;
    for (const auto first : c.keys)
        for (std::int64_t t = 0; t < c.tokens; ++t) seen.push_back(t < first);
    test::Values<std::int64_t> mask(d, seen);
    const auto gradient = s.of<BFloat16>(n * q);
    c.joint.d_out = wide(gradient);
    test::Values<BFloat16> g(d, gradient), out(d, test::empty<BFloat16>(n * q)),
        dq(d, test::empty<BFloat16>(n * stride)), dkv(d, test::empty<BFloat16>(2 * n * kv));
    test::Values<float> log_sum(d, test::empty<float>(n * c.heads)),
        dk(d, test::empty<float>(n * q)), dv(d, test::empty<float>(n * q)),
        ds(d, test::empty<float>(n * c.heads * (c.step + 1))),
        p(d, test::empty<float>(n * c.heads * (c.step + 1)));
    TttAttention<BFloat16> a{c.joint.batch(), c.tokens, c.heads,     c.groups,
                             c.width,         c.step,   mask.data(), qkv.back().data(),
                             stride,          k.data(), v.data(),    stride};
    a.leading_keys = true, a.out = out.data(), a.out_stride = q;
    ttt_attention(d, a, out.data(), q, log_sum.data());
    const DiagonalColumns diagonal{ds.data(), p.data()};
    ttt_attention_backward(d, a, log_sum.data(), g.data(), q, dq.data(), stride, dk.data(),
                           dv.data(), diagonal);
    reduce_kv_gradient(d, a, dk.data(), dkv.data(), 2 * kv);
    reduce_kv_gradient(d, a, dv.data(), dkv.data() + kv, 2 * kv);

    const auto want = c.joint.compute(0x1p-8);
    within(wide(out.host(d)), want.out, want.out_error, of_fp32);
    const auto sums = log_sum.host(d);
    within({sums.begin(), sums.end()}, want.log_sum, std::vector<double>(sums.size(), 0), of_fp32);
    const auto columns = [&](test::Values<BFloat16>& from, std::int64_t width, std::int64_t first,
                             std::int64_t count) {
        const auto all = wide(from.host(d));
        std::vector<double> part;
        for (std::int64_t r = 0; r < n; ++r)
            for (std::int64_t e = first; e < first + count; ++e)
                part.push_back(all[static_cast<std::size_t>(r * width + e)]);
        return part;
    };
    within(columns(dq, stride, 0, q), want.dq, want.dq_error, of_fp32);
    auto twice = want;  // rounded by the library, and again as a row of the step's gradient
    for (std::size_t i = 0; i < want.dk[0].size(); ++i) {
        twice.dk_error[0][i] += 0x1p-8 * (std::abs(want.dk[0][i]) + want.dk_error[0][i]);
        twice.dv_error[0][i] += 0x1p-8 * (std::abs(want.dv[0][i]) + want.dv_error[0][i]);
    }
    within(columns(dkv, 2 * kv, 0, kv), want.dk[0], twice.dk_error[0], of_fp32);
    within(columns(dkv, 2 * kv, kv, kv), want.dv[0], twice.dv_error[0], of_fp32);
    if (c.step == 0) return;
    std::vector<test::Values<float>> later;
    std::vector<float*> pk{nullptr}, pv{nullptr};
    for (std::int64_t j = 0; j < 2 * c.step; ++j) later.emplace_back(d, test::empty<float>(n * kv));
    for (std::size_t j = 0; j < later.size(); j += 2)
        pk.push_back(later[j].data()), pv.push_back(later[j + 1].data());
    ttt_attention_backward_diagonal(d, a, diagonal, g.data(), q, pk.data(), pv.data());
    for (std::size_t j = 1; j < pk.size(); ++j) {
        const auto x = later[2 * j - 2].host(d), y = later[2 * j - 1].host(d);
        within({x.begin(), x.end()}, want.dk[j], want.dk_error[j], of_fp32);
        within({y.begin(), y.end()}, want.dv[j], want.dv_error[j], of_fp32);
    }
}

/// The library that was chosen goes when the test does.
struct Chosen {
    Cuda cuda;
    std::shared_ptr<fake_cuda::ReferenceSdpa> library =
        std::make_shared<fake_cuda::ReferenceSdpa>();
    Chosen() { cuda.attend_by(library); }
};
}  // namespace

TEST_CASE("attention by a library with the diagonal merged is one softmax") {
    for (const bool eager : {false, true})
        for (const bool backwards : {false, true}) {
            fake_cuda::eager(eager), fake_cuda::backwards(backwards);
            const Chosen c;
            compare(c.cuda, {37, 4, 2, 16, 0, {37, 37}});
            compare(c.cuda, {37, 4, 2, 16, 3, {37, 12}});
            compare(c.cuda, {20, 3, 3, 40, 15, {1}});
            compare(c.cuda, {65, 6, 1, 64, 6, {65, 64, 3}});
            CHECK(c.cuda.attention_use().text() == "reference, 8 calls");
            CHECK(fake_cuda::failures() == Told());
        }
    fake_cuda::eager(false), fake_cuda::backwards(false);
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("without a library, or where it refuses, the own strips attend") {
    Chosen c;
    const auto strips = [] { return test::attention_case<BFloat16>(Cuda(), 37, 2); };
    const auto refused = strips();  // keys that are not the first ones
    CHECK(c.cuda.attention_use().taken == 0);
    CHECK(c.cuda.attention_use().refused == 1);
    CHECK_THAT(c.cuda.attention_use().text(),
               Catch::Contains("reference, 0 calls, 1 by own strips (rows of several documents"));
    const Case narrow{12, 2, 1, 16, 1, {12}};
    compare(c.cuda, narrow);
    CHECK(c.cuda.attention_use().taken == 2);
    c.library->widest = 8;
    c.cuda.attend_by(c.library);
    CHECK(c.cuda.plans_sdpa({.head_dim = 16, .leading_keys = true}) == false);
    CHECK(c.cuda.attention_use().text() == "reference, 0 calls, 1 by own strips (heads of 16)");
    CHECK(c.cuda.plans_sdpa({.head_dim = 8, .leading_keys = true}));
    CHECK(test::attention_case<float>(c.cuda, 37, 2).size() == refused.size());
    CHECK(c.cuda.attention_use().refused == 1);  // fp32 never asks
    c.cuda.attend_by(nullptr);
    CHECK(c.cuda.attention_use().text() == "own strips, 0 calls");
    CHECK(strips() == refused);
    CHECK(fake_cuda::failures() == Told());
}
