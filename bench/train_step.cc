// train_step [--shape S|M|tiny] [--tokens T] [--ttt K] [--steps N] [--supervised F]: times the
// EAGLE3 training step (forward, backward, clip, AdamW) on random features, beside a GEMM roofline
// over the step's own matrix shapes measured in the same run, and prints the memory the step adds.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/draft_job.hpp"
#include "bench/timing.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/optimizer/clip.hpp"

namespace {
using namespace eyas;

using bench::BenchShape;

/// Resident memory in MB: "VmRSS" now, "VmHWM" at its highest.
double memory_mb(const char* key) {
    std::ifstream in("/proc/self/status");
    for (std::string line; std::getline(in, line);)
        if (line.starts_with(key)) return std::stod(line.substr(std::strlen(key) + 1)) / 1024.0;
    return 0;
}

/// Multiply-add counts 2; the formula counts every row and the causal half of attention, whatever
/// the step skips, so that rates of different programs compare.
double step_flops(const BenchShape& s, double T, double K) {
    const auto d = static_cast<double>(s.D), kv = static_cast<double>(s.G * (s.D / s.H));
    const double step = 2 * T *
                            (2 * d * (d + 2 * kv) + d * d + 3 * d * static_cast<double>(s.F) +
                             d * static_cast<double>(s.W)) +
                        2 * T * T * d;
    return 2 * T * d * static_cast<double>(s.V) + 12 * T * d * d + K * 3 * step;
}

/// Seconds that the step's GEMMs alone would take: each shape and transpose, median of 3.
double gemm_seconds(const BenchShape& s, std::int64_t T, double K) {
    const Cpu cpu;
    double total = 0;
    const auto time = [&](Op a, Op b, std::int64_t m, std::int64_t n, std::int64_t k,
                          double count) {
        std::vector<float> x(static_cast<std::size_t>(m * k), 1.f),
            y(static_cast<std::size_t>(k * n), 1.f), z(static_cast<std::size_t>(m * n));
        const auto run = [&] {
            cpu.matmul(Matmul<float, float>{a, b, m, n, k, x.data(), a == Op::None ? k : m,
                                            y.data(), b == Op::None ? n : k, z.data(), n});
        };
        total += count * bench::times_of(run, 3).median;
    };
    const auto kv = s.G * (s.D / s.H);
    time(Op::None, Op::Transposed, T, s.V, s.D, 1);
    time(Op::None, Op::Transposed, T, s.D, 3 * s.D, 1);
    time(Op::Transposed, Op::None, s.D, 3 * s.D, T, 1);
    const std::int64_t layers[][2] = {
        {2 * s.D, s.D + 2 * kv}, {s.D, s.D}, {s.D, 2 * s.F}, {s.F, s.D}, {s.D, s.W}};
    for (const auto& [in, out] : layers) {
        time(Op::None, Op::Transposed, T, out, in, K);
        time(Op::None, Op::None, T, in, out, K);
        time(Op::Transposed, Op::None, out, in, T, K);
    }
    return total;
}

void run(const bench::Arguments& a) {
    const auto& s = bench::shapes.at(a.text("shape"));
    const std::int64_t T = a.number("tokens"), ttt = a.number("ttt");
    const double K = static_cast<double>(ttt);
    const double gemm = gemm_seconds(s, T, K), flops = step_flops(s, static_cast<double>(T), K);

    std::unique_ptr<Eagle3<Cpu, F32>> model;
    std::optional<bench::DraftBatch> sample;
    {
        const auto head = bench::random_tensor({s.V, s.D}, 1);
        model = bench::make_draft(s, T, ttt, head);
        sample.emplace(s, T, a.real("supervised"), head, 2);
    }
    AdamW<Cpu> optimizer(model->device(), model->parameters(), AdamWOptions{});
    const auto batch = sample->view();

    const double before = memory_mb("VmRSS:");
    double accepted = 0;
    const auto t = bench::times_of(
        [&] {
            model->zero_gradients();
            const auto m = model->forward_backward(batch, 1.f);
            accepted = m.acceptance_rows[0];
            const double norm = global_norm(model->device(), std::span(model->parameters()));
            optimizer.step(1e-4, clip_scale(norm, 0.5));
        },
        static_cast<std::size_t>(a.number("steps")));
    std::printf("shape %s  T %ld  TTT %ld  rows in the loss %.0f\n", a.text("shape").c_str(), T,
                ttt, accepted);
    std::printf("step      %8.3f s   (min %.3f, max %.3f, %s runs)\n", t.median, t.min, t.max,
                a.text("steps").c_str());
    std::printf("speed     %8.1f tokens/s   %.1f GFLOP/s\n", static_cast<double>(T) / t.median,
                flops / t.median / 1e9);
    std::printf(
        "roofline  %8.3f s for the same GEMMs alone   %.1f GFLOP/s   step is %.0f %% of it\n", gemm,
        flops / gemm / 1e9, 100 * gemm / t.median);
    std::printf(
        "memory    %8.0f MB added by the step on top of weights, target head and optimizer\n",
        memory_mb("VmHWM:") - before);
}
}  // namespace

int main(int argc, char** argv) {
    try {
        run({argc,
             argv,
             {{"shape", "S"},
              {"tokens", "512"},
              {"ttt", "7"},
              {"steps", "5"},
              {"supervised", "1"}}});
    } catch (const std::exception& e) {
        std::fprintf(stderr, "train_step: %s\n", e.what());
        return 1;
    }
}
