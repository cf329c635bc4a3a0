#pragma once
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "eyas/device/cuda.cuh"
#include "eyas/ops/block/all.hpp"
#include "joint_attention.hpp"
#include "op_parity.hpp"

/// Attention in bfloat16 by a library and the kernels that merge the diagonal, beside one softmax
/// in double.
namespace eyas::test::sdpa {

inline std::vector<double> wide(const std::vector<BFloat16>& v) {
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

inline void within(const std::vector<double>& got, const std::vector<double>& want,
                   const std::vector<double>& error, double fp32) {
    REQUIRE(got.size() == want.size());
    double worst = 0;  // the error in units of its bound
    for (std::size_t i = 0; i < want.size(); ++i)
        if (const double e = std::abs(got[i] - want[i]) / (error[i] + fp32); !(e <= worst))
            worst = e;
    CHECK(worst <= 1);
}

/// Sums in fp32 of some hundred terms of a few units, and exp_fast.
inline constexpr double of_fp32 = 2e-4;

/// A library that attends until the test ends.
struct Chosen {
    Cuda cuda;
    explicit Chosen(std::shared_ptr<SdpaLibrary> library) { cuda.attend_by(std::move(library)); }
    ~Chosen() { cuda.attend_by(nullptr); }
    Chosen(const Chosen&) = delete;
    Chosen& operator=(const Chosen&) = delete;
};

/// What the device gave.
struct Attended {
    std::vector<BFloat16> out, dq, dkv;
    std::vector<float> log_sum;
    std::vector<std::vector<float>> dk, dv;  // of the TTT steps 1 … step
    bool operator==(const Attended&) const = default;
};

/// Forward and backward on the device; the same numbers each time.
inline Attended attend(const Cuda& d, Case& c) {
    const auto q = c.heads * c.width, kv = c.groups * c.width, stride = q + 2 * kv + 8,
               n = c.rows();
    Source s;
    std::vector<Values<BFloat16>> qkv;
    for (std::int64_t j = 0; j <= c.step; ++j) qkv.emplace_back(d, c.step_rows(s, j == c.step));
    std::vector<const BFloat16*> k, v;
    for (auto& x : qkv) k.push_back(x.data() + q), v.push_back(x.data() + q + kv);
    std::vector<std::int64_t> seen;
    for (const auto first : c.keys)
        for (std::int64_t t = 0; t < c.tokens; ++t) seen.push_back(t < first);
    Values<std::int64_t> mask(d, seen);
    const auto gradient = s.of<BFloat16>(n * q);
    c.joint.d_out = wide(gradient);
    Values<BFloat16> g(d, gradient), out(d, empty<BFloat16>(n * q)),
        dq(d, empty<BFloat16>(n * stride)), dkv(d, empty<BFloat16>(2 * n * kv));
    Values<float> log_sum(d, empty<float>(n * c.heads)), dk(d, empty<float>(n * q)),
        dv(d, empty<float>(n * q)), ds(d, empty<float>(n * c.heads * (c.step + 1))),
        p(d, empty<float>(n * c.heads * (c.step + 1)));
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
    Attended got{out.host(d), dq.host(d), dkv.host(d), log_sum.host(d), {}, {}};
    if (c.step == 0) return got;
    std::vector<Values<float>> later;
    std::vector<float*> pk{nullptr}, pv{nullptr};
    for (std::int64_t j = 0; j < 2 * c.step; ++j) later.emplace_back(d, empty<float>(n * kv));
    for (std::size_t j = 0; j < later.size(); j += 2)
        pk.push_back(later[j].data()), pv.push_back(later[j + 1].data());
    ttt_attention_backward_diagonal(d, a, diagonal, g.data(), q, pk.data(), pv.data());
    for (std::size_t j = 0; j < later.size(); j += 2)
        got.dk.push_back(later[j].host(d)), got.dv.push_back(later[j + 1].host(d));
    return got;
}

/// Columns of rows that are `width` wide.
inline std::vector<double> columns(const std::vector<BFloat16>& from, std::int64_t width,
                                   std::int64_t first, std::int64_t count) {
    const auto all = wide(from);
    std::vector<double> part;
    for (std::size_t r = 0; r < all.size(); r += static_cast<std::size_t>(width)) {
        const auto at = all.begin() + static_cast<std::ptrdiff_t>(r) + first;
        part.insert(part.end(), at, at + count);
    }
    return part;
}

/// Each value within the bound that a library's roundings allow.
inline void compare(const Cuda& d, Case c) {
    const auto got = attend(d, c);
    const auto q = c.heads * c.width, kv = c.groups * c.width, stride = q + 2 * kv + 8;
    const auto want = c.joint.compute(0x1p-8);
    within(wide(got.out), want.out, want.out_error, of_fp32);
    within({got.log_sum.begin(), got.log_sum.end()}, want.log_sum,
           std::vector<double>(got.log_sum.size(), 0), of_fp32);
    within(columns(got.dq, stride, 0, q), want.dq, want.dq_error, of_fp32);
    auto twice = want;  // rounded by the library, and again as a row of the step's gradient
    for (std::size_t i = 0; i < want.dk[0].size(); ++i) {
        twice.dk_error[0][i] += 0x1p-8 * (std::abs(want.dk[0][i]) + want.dk_error[0][i]);
        twice.dv_error[0][i] += 0x1p-8 * (std::abs(want.dv[0][i]) + want.dv_error[0][i]);
    }
    within(columns(got.dkv, 2 * kv, 0, kv), want.dk[0], twice.dk_error[0], of_fp32);
    within(columns(got.dkv, 2 * kv, kv, kv), want.dv[0], twice.dv_error[0], of_fp32);
    for (std::size_t j = 0; j < got.dk.size(); ++j) {
        within({got.dk[j].begin(), got.dk[j].end()}, want.dk[j + 1], want.dk_error[j + 1], of_fp32);
        within({got.dv[j].begin(), got.dv[j].end()}, want.dv[j + 1], want.dv_error[j + 1], of_fp32);
    }
}

}  // namespace eyas::test::sdpa
