#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

/// TTT attention in double: one softmax over the causal keys and the diagonal's. Nothing is
/// rounded.
namespace eyas::test {

struct JointAttention {
    std::int64_t tokens, heads, groups, width, step;
    std::vector<std::int64_t> keys;         // of each batch row: the first ones that are seen
    std::vector<double> q;                  // [B*T, H*E]
    std::vector<std::vector<double>> k, v;  // of each step [B*T, G*E]
    std::vector<double> d_out;              // [B*T, H*E]

    /// Results, and beside each `error`: how far one of bfloat16 can be off that rounds once where
    /// `u` says (2^-8, half of bfloat16's last place at most; 0: nowhere).
    struct Result {
        std::vector<double> out, log_sum, dq;
        std::vector<std::vector<double>> dk, dv;
        std::vector<double> out_error, dq_error;
        std::vector<std::vector<double>> dk_error, dv_error;
    };

    std::int64_t batch() const { return static_cast<std::int64_t>(keys.size()); }

    Result compute(double u) const {
        Result r;
        r.out.assign(q.size(), 0), r.out_error = r.dq = r.dq_error = r.out;
        r.log_sum.assign(static_cast<std::size_t>(batch() * heads * tokens), 0);
        const std::vector<double> zeros(k[0].size(), 0);
        r.dk.assign(k.size(), zeros), r.dv = r.dk_error = r.dv_error = r.dk;
        for (std::int64_t b = 0; b < batch(); ++b)
            for (std::int64_t h = 0; h < heads; ++h)
                for (std::int64_t t = 0; t < tokens; ++t) row(b, h, t, u, r);
        // Gradients of keys are rounded once when they are written.
        for (std::size_t j = 0; j < k.size(); ++j)
            for (std::size_t i = 0; i < zeros.size(); ++i) {
                r.dk_error[j][i] += u * std::abs(r.dk[j][i]);
                r.dv_error[j][i] += u * std::abs(r.dv[j][i]);
            }
        return r;
    }

private:
    struct Column {
        std::size_t step, at;  // first element of the key
        double score, p = 0, dp = 0;
    };
    static double dot(const double* a, const double* b, std::int64_t n) {
        double sum = 0;
        for (std::int64_t e = 0; e < n; ++e) sum += a[e] * b[e];
        return sum;
    }

    void row(std::int64_t b, std::int64_t h, std::int64_t t, double u, Result& r) const {
        const double scale = 1 / std::sqrt(static_cast<double>(width));
        const auto kv = h / (heads / groups) * width;
        const auto at = static_cast<std::size_t>((b * tokens + t) * heads * width + h * width);
        const auto key = [&](std::int64_t s) {
            return static_cast<std::size_t>((b * tokens + s) * groups * width + kv);
        };
        std::vector<Column> columns;
        for (std::int64_t s = 0; s <= t && s < keys[static_cast<std::size_t>(b)]; ++s)
            columns.push_back({0, key(s), 0});
        for (std::int64_t j = 1; j <= step; ++j)
            columns.push_back({static_cast<std::size_t>(j), key(t), 0});
        double top = -INFINITY, sum = 0;
        for (auto& c : columns) {
            c.score = dot(&q[at], &k[c.step][c.at], width) * scale;
            top = std::max(top, c.score);
        }
        for (auto& c : columns) sum += std::exp(c.score - top);
        const double all = top + std::log(sum);
        r.log_sum[static_cast<std::size_t>((b * heads + h) * tokens + t)] = all;
        double delta = 0, delta_error = 0;
        for (auto& c : columns) {
            c.p = std::exp(c.score - all);
            c.dp = dot(&d_out[at], &v[c.step][c.at], width);
            delta += c.p * c.dp;
        }
        for (std::size_t e = 0; e < static_cast<std::size_t>(width); ++e) {
            double size = 0;
            for (const auto& c : columns) {
                r.out[at + e] += c.p * v[c.step][c.at + e];
                size += c.p * std::abs(v[c.step][c.at + e]);
            }
            // Probabilities, the causal part and the sum are rounded.
            r.out_error[at + e] = 3 * u * size;
            delta_error += r.out_error[at + e] * std::abs(d_out[at + e]);
        }
        std::vector<double> causal(static_cast<std::size_t>(width), 0.0);
        for (const auto& c : columns) {
            const double ds = c.p * (c.dp - delta) * scale;
            const double ds_error = u * std::abs(ds) + (1 + u) * c.p * scale * delta_error;
            for (std::size_t e = 0; e < static_cast<std::size_t>(width); ++e) {
                r.dq[at + e] += ds * k[c.step][c.at + e];
                if (c.step == 0) causal[e] += ds * k[c.step][c.at + e];
                r.dq_error[at + e] += ds_error * std::abs(k[c.step][c.at + e]);
                r.dk[c.step][c.at + e] += ds * q[at + e];
                r.dk_error[c.step][c.at + e] += ds_error * std::abs(q[at + e]);
                r.dv[c.step][c.at + e] += c.p * d_out[at + e];
                r.dv_error[c.step][c.at + e] += u * c.p * std::abs(d_out[at + e]);
            }
        }
        for (std::size_t e = 0; e < static_cast<std::size_t>(width); ++e) {
            const auto i = at + e;  // the causal part and the sum are rounded
            r.dq_error[i] +=
                (2 * u + u * u) * (std::abs(r.dq[i]) + std::abs(causal[e]) + r.dq_error[i]);
        }
    }
};

}  // namespace eyas::test
