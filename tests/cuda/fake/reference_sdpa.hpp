#pragma once
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "eyas/device/cuda_sdpa.cuh"
#include "fake_cuda.hpp"

/// A library of causal attention on the host, as work of the fake's streams. It rounds where a
/// flash kernel does: scores and sums are fp32, what enters the second products is bfloat16.
namespace eyas::fake_cuda {

class ReferenceSdpa final : public SdpaLibrary {
public:
    static constexpr std::size_t workspace_bytes = 1000;
    /// Takes no head wider than this.
    std::int64_t widest = 256;

    std::string name() const override { return "reference"; }
    std::unique_ptr<SdpaPlan> plan(const SdpaShape& shape, std::string& why) override {
        if (shape.head_dim <= widest) return std::make_unique<Plan>(shape);
        why = "heads of " + std::to_string(shape.head_dim);
        return nullptr;
    }

private:
    struct Plan final : SdpaPlan {
        explicit Plan(const SdpaShape& shape) : s(shape) {}
        std::size_t workspace_bytes() const override { return ReferenceSdpa::workspace_bytes; }
        void execute(const SdpaArrays& arrays, void* workspace, cudaStream_t stream) override {
            enqueue(stream, "sdpa", [shape = s, arrays, workspace] {
                if (!device_range("sdpa workspace", workspace, ReferenceSdpa::workspace_bytes))
                    return;
                run(shape, arrays);
            });
        }
        SdpaShape s;
    };

    static float narrow(float x) { return static_cast<float>(BFloat16(x)); }
    static float dot(const BFloat16* a, const BFloat16* b, std::int64_t n) {
        float sum = 0;
        for (std::int64_t e = 0; e < n; ++e)
            sum += static_cast<float>(a[e]) * static_cast<float>(b[e]);
        return sum;
    }

    static void run(const SdpaShape& s, const SdpaArrays& x) {
        const auto kv_width = s.kv_heads * s.head_dim, n = s.batch * s.tokens * kv_width;
        std::vector<float> dk, dv;
        if (s.backward()) dk.assign(static_cast<std::size_t>(n), 0.f), dv = dk;
        for (std::int64_t b = 0; b < s.batch; ++b)
            for (std::int64_t h = 0; h < s.heads; ++h)
                for (std::int64_t t = 0; t < x.rows[b]; ++t)
                    s.backward() ? backward_row(s, x, b, h, t, dk, dv) : forward_row(s, x, b, h, t);
        for (std::size_t i = 0; i < dk.size(); ++i) {
            const auto row = static_cast<std::int64_t>(i) / kv_width;
            if (row % s.tokens < x.keys[row / s.tokens])  // the others it need not write
                x.dk[i] = BFloat16(dk[i]), x.dv[i] = BFloat16(dv[i]);
        }
    }

    static void forward_row(const SdpaShape& s, const SdpaArrays& x, std::int64_t b, std::int64_t h,
                            std::int64_t t) {
        const auto row = b * s.tokens + t, kv = h / (s.heads / s.kv_heads) * s.head_dim;
        const auto keys = std::min<std::int64_t>(t + 1, x.keys[b]);
        const auto at = [&](std::int64_t c) { return (b * s.tokens + c) * s.kv_stride + kv; };
        const BFloat16* q = x.q + row * s.q_stride + h * s.head_dim;
        std::vector<float> p;
        for (std::int64_t c = 0; c < keys; ++c)
            p.push_back(dot(q, x.k + at(c), s.head_dim) * s.scale);
        const float top = *std::max_element(p.begin(), p.end());
        float sum = 0;
        for (float& v : p) v = std::exp(v - top), sum += v;
        for (std::int64_t e = 0; e < s.head_dim; ++e) {
            float o = 0;
            for (std::int64_t c = 0; c < keys; ++c)
                o += narrow(p[static_cast<std::size_t>(c)]) * static_cast<float>(x.v[at(c) + e]);
            x.out[row * s.out_stride + h * s.head_dim + e] = BFloat16(o / sum);
        }
        x.log_sum[(b * s.heads + h) * s.tokens + t] = top + std::log(sum);
    }

    static void backward_row(const SdpaShape& s, const SdpaArrays& x, std::int64_t b,
                             std::int64_t h, std::int64_t t, std::vector<float>& dk,
                             std::vector<float>& dv) {
        const auto row = b * s.tokens + t, g = h / (s.heads / s.kv_heads), kv = g * s.head_dim;
        const auto keys = std::min<std::int64_t>(t + 1, x.keys[b]);
        const BFloat16* q = x.q + row * s.q_stride + h * s.head_dim;
        const BFloat16* d = x.d_out + row * s.d_out_stride + h * s.head_dim;
        const float delta = dot(d, x.out + row * s.out_stride + h * s.head_dim, s.head_dim);
        std::vector<float> dq(static_cast<std::size_t>(s.head_dim), 0.f);
        for (std::int64_t c = 0; c < keys; ++c) {
            const auto from = (b * s.tokens + c) * s.kv_stride + kv,
                       to = (b * s.tokens + c) * s.kv_heads * s.head_dim + kv;
            const float p = std::exp(dot(q, x.k + from, s.head_dim) * s.scale -
                                     x.log_sum[(b * s.heads + h) * s.tokens + t]);
            const float ds = narrow(p * (dot(d, x.v + from, s.head_dim) - delta)) * s.scale;
            for (std::int64_t e = 0; e < s.head_dim; ++e) {
                const auto i = static_cast<std::size_t>(to + e);
                dq[static_cast<std::size_t>(e)] += ds * static_cast<float>(x.k[from + e]);
                dk[i] += ds * static_cast<float>(q[e]);
                dv[i] += narrow(p) * static_cast<float>(d[e]);
            }
        }
        for (std::int64_t e = 0; e < s.head_dim; ++e)
            x.dq[row * s.dq_stride + h * s.head_dim + e] =
                BFloat16(dq[static_cast<std::size_t>(e)]);
    }
};

}  // namespace eyas::fake_cuda
