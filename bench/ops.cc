// ops [--tokens T] [--runs R]: times each op of the training step at the shape of SmolLM2-135M
// beside its ceiling in the same run: GEMM for what multiplies (GFLOP/s), memcpy for what streams
// (GB/s read and written).
#include <omp.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>

#include "bench/timing.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/ops/attention.hpp"
#include "eyas/ops/attention_backward.hpp"
#include "eyas/ops/distillation_loss.hpp"
#include "eyas/ops/rms_norm.hpp"
#include "eyas/ops/swiglu.hpp"

namespace {
using namespace eyas;
constexpr std::int64_t D = 576, F = 1536, H = 9, G = 3, E = 64, W = 8192;

std::vector<float> random_floats(std::int64_t n) {
    std::vector<float> v(static_cast<std::size_t>(n));
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(-1.f, 1.f);
    for (auto& x : v) x = uniform(random);
    return v;
}

class Ops {
public:
    Ops(std::int64_t tokens, std::size_t runs) : T(tokens), runs_(runs) {
        std::printf("T %lld, %d threads\n%-34s %10s %12s\n", static_cast<long long>(T),
                    omp_get_max_threads(), "", "ms", "");
    }

    void run() {
        ceilings();
        norm();
        feed_forward();
        attention(0);
        attention(6);
        loss();
    }

private:
    template <class Fn>
    double row(const char* what, double amount, const char* unit, double ceiling, Fn&& f) {
        const auto t = bench::times_of(f, runs_);
        const double rate = amount / t.median / 1e9;
        std::printf("%-34s %10.3f %8.1f %s", what, 1e3 * t.median, rate, unit);
        if (ceiling > 0) std::printf("   %3.0f %% of the ceiling", 100 * rate / ceiling);
        std::printf("\n");
        return rate;
    }
    double flops(const char* what, double n, auto&& f) { return row(what, n, "GFLOP/s", gemm_, f); }
    double streams(const char* what, std::int64_t floats, auto&& f) {
        return row(what, 4.0 * static_cast<double>(floats), "GB/s", copy_, f);
    }

    void ceilings() {
        const auto x = random_floats(T * D), w = random_floats(W * D);
        std::vector<float> y(static_cast<std::size_t>(T * W)), z(y.size());
        gemm_ = flops("ceiling: GEMM [T,D] x [D,W]",
                      2.0 * static_cast<double>(T) * static_cast<double>(D * W), [&] {
                          cpu_.matmul(Matmul<float, float>{Op::None, Op::Transposed, T, W, D,
                                                           x.data(), D, w.data(), D, y.data(), W});
                      });
        copy_ = streams("ceiling: memcpy on all threads", 2 * T * W, [&] {
            cpu_.for_each_row(
                T, [&](std::int64_t r) { std::memcpy(z.data() + r * W, y.data() + r * W, 4 * W); });
        });
    }

    void norm() {
        const auto x = random_floats(T * D), w = random_floats(D), g = random_floats(T * D);
        std::vector<float> y(x.size()), dx(x.size()), dw(D), scale(static_cast<std::size_t>(T));
        streams("rms_norm", 2 * T * D, [&] {
            rms_norm(cpu_, x.data(), D, w.data(), y.data(), D, scale.data(), T, D, 1e-5f);
        });
        streams("rms_norm backward", 4 * T * D, [&] {
            rms_norm_backward(cpu_, x.data(), D, w.data(), g.data(), D, dx.data(), D, scale.data(),
                              dw.data(), T, D);
        });
    }

    void feed_forward() {
        const auto original = random_floats(T * 2 * F), g = random_floats(T * F);
        auto gate_up = original;
        std::vector<float> a(g.size());
        streams("swiglu", 3 * T * F, [&] { swiglu(cpu_, gate_up.data(), a.data(), T, F); });
        streams("swiglu backward", 5 * T * F,
                [&] { swiglu_backward(cpu_, gate_up.data(), g.data(), T, F); });
    }

    // The causal half is counted, and the diagonal terms of TTT step `step`.
    void attention(std::int64_t step) {
        const auto q = random_floats(T * H * E), kv = random_floats(T * G * E),
                   g = random_floats(T * H * E);
        const std::vector<std::int64_t> mask(static_cast<std::size_t>(T), 1);
        const std::vector<const float*> k(static_cast<std::size_t>(step + 1), kv.data());
        const TttAttention<float> a{1,           T,        H,     G,        E,        step,
                                    mask.data(), q.data(), H * E, k.data(), k.data(), G * E};
        std::vector<float> out(q.size()), log_sum(static_cast<std::size_t>(H * T)), dq(q.size());
        std::vector<float> dk_first(q.size()), dv_first(q.size());
        std::vector<std::vector<float>> dk(k.size(), std::vector<float>(kv.size())), dv = dk;
        std::vector<float*> pk, pv;
        for (std::size_t j = 0; j < k.size(); ++j)
            pk.push_back(dk[j].data()), pv.push_back(dv[j].data());
        std::vector<float> d_scores(static_cast<std::size_t>(H * T * step)), weights = d_scores;
        const DiagonalColumns diagonal{d_scores.data(), weights.data()};
        const double pairs =
            static_cast<double>(T) * (static_cast<double>(T) / 2 + static_cast<double>(step));
        const double forward = 4 * pairs * static_cast<double>(H * E);
        const auto name = [&](const char* what) {
            return std::string(what) + ", TTT step " + std::to_string(step);
        };
        flops(name("attention").c_str(), forward,
              [&] { ttt_attention(cpu_, a, out.data(), H * E, log_sum.data()); });
        flops(name("attention backward").c_str(), 2.5 * forward, [&] {
            ttt_attention_backward(cpu_, a, log_sum.data(), g.data(), H * E, dq.data(), H * E,
                                   dk_first.data(), dv_first.data(), diagonal);
            ttt_attention_backward_diagonal(cpu_, a, diagonal, g.data(), H * E, pk.data(),
                                            pv.data());
        });
    }

    void loss() {
        const auto z = random_floats(T * W), p = random_floats(T * W);
        std::vector<float> teacher = p, draft(z.size());
        std::vector<std::int64_t> ids(W);
        std::iota(ids.begin(), ids.end(), 0);
        std::vector<TeacherRow> rows(static_cast<std::size_t>(T));
        streams("teacher rows (arg-max, log-sum)", T * W, [&] {
            cpu_.for_each_row(T, [&](std::int64_t r) {
                rows[static_cast<std::size_t>(r)] = {};
                visit(rows[static_cast<std::size_t>(r)], z.data() + r * W, ids.data(), W);
            });
        });
        streams("teacher probabilities", 2 * T * W, [&] {
            cpu_.for_each_row(
                T, [&](std::int64_t r) { teacher_probabilities(teacher.data() + r * W, W, 10.f); });
        });
        streams("draft rows, loss and gradient", 4 * T * W, [&] {
            cpu_.for_each_row(T, [&](std::int64_t r) {
                float* l = draft.data() + r * W;
                std::copy_n(z.data() + r * W, W, l);
                const float* t = teacher.data() + r * W;
                const auto d = draft_row(l, t, 1.f, W);
                draft_row_backward(l, t, 1.f, d, {1.f, 0.f}, W);
            });
        });
    }

    std::int64_t T;
    std::size_t runs_;
    double gemm_ = 0, copy_ = 0;
    Cpu cpu_;
};
}  // namespace

int main(int argc, char** argv) {
    try {
        const eyas::bench::Arguments a(argc, argv, {{"tokens", "512"}, {"runs", "9"}});
        Ops(a.number("tokens"), static_cast<std::size_t>(a.number("runs"))).run();
    } catch (const std::exception& e) {
        std::fprintf(stderr, "ops: %s\n", e.what());
        return 1;
    }
}
