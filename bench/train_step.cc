// train_step [--shape S|M|tiny] [--tokens T] [--ttt K] [--steps N] [--supervised F]
// [--saves-in DIR] [--save-interval N]: times the EAGLE3 training step (forward, backward, clip,
// AdamW) on random features, beside a GEMM roofline over the step's own matrix shapes measured in
// the same run, and prints the memory the step adds; and how long training stands still for
// checkpoints in DIR.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "bench/saves.hpp"
#include "bench/timing.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/model/eagle3.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/optimizer/clip.hpp"

namespace {
using namespace eyas;

struct BenchShape {
    std::int64_t D, F, H, G, V, W;
};
const std::map<std::string, BenchShape> shapes{{"S", {576, 1536, 9, 3, 49152, 8192}},
                                               {"M", {2048, 8192, 32, 8, 128256, 32000}},
                                               {"tiny", {64, 128, 4, 2, 512, 128}}};

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

Tensor random_tensor(const Shape& shape, unsigned seed) {
    Tensor t(DType::F32, shape);
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(-1.f, 1.f);
    for (float& v : t.as<float>()) v = uniform(random);
    return t;
}

VocabMap first_tokens(std::int64_t V, std::int64_t W) {
    VocabMap m;
    m.d2t.assign(static_cast<std::size_t>(W), 0);
    m.t2d.assign(static_cast<std::size_t>(V), 0);
    std::fill_n(m.t2d.begin(), W, 1);
    return m;
}

void run(const bench::Arguments& a) {
    const auto& s = shapes.at(a.text("shape"));
    const std::int64_t T = a.number("tokens"), ttt = a.number("ttt");
    const double K = static_cast<double>(ttt);
    const double gemm = gemm_seconds(s, T, K), flops = step_flops(s, static_cast<double>(T), K);

    const auto config = parse_model_config(Json{{"hidden_size", s.D},
                                                {"intermediate_size", s.F},
                                                {"num_attention_heads", s.H},
                                                {"num_key_value_heads", s.G},
                                                {"vocab_size", s.V},
                                                {"draft_vocab_size", s.W},
                                                {"max_position_embeddings", T + 64}},
                                           "bench");
    Eagle3Options options;
    options.ttt_length = ttt;
    std::unique_ptr<Eagle3<Cpu, F32>> model;
    Tensor target(DType::F32, {1, T, s.D});
    {
        const auto head = random_tensor({s.V, s.D}, 1);
        model = std::make_unique<Eagle3<Cpu, F32>>(config, options, first_tokens(s.V, s.W),
                                                   FrozenTarget{head, head}, 1);
        // Teacher states are head rows of draft tokens, whose own logit is by far the largest: so
        // every row's arg-max has a draft id and is in the loss.
        for (std::int64_t t = 0; t < T; ++t)
            std::copy_n(head.as<float>().data() + (t * 31 % s.W) * s.D, s.D,
                        target.as<float>().data() + t * s.D);
    }
    AdamW<Cpu> optimizer(model->device(), model->parameters(), AdamWOptions{});
    auto hidden = random_tensor({1, T, 3 * s.D}, 2);
    auto ids = Tensor::zeros(DType::I64, {1, T}), ones = Tensor::zeros(DType::I64, {1, T}),
         mask = Tensor::zeros(DType::I64, {1, T});
    std::ranges::fill(ones.as<std::int64_t>(), 1);
    for (std::int64_t t = 0; t < T; ++t) {
        ids.as<std::int64_t>()[static_cast<std::size_t>(t)] = (t * 7919) % s.V;
        mask.as<std::int64_t>()[static_cast<std::size_t>(t)] =
            static_cast<double>(t) < a.real("supervised") * static_cast<double>(T);
    }
    const Batch batch{ids, ones, mask, hidden, target, {}, {"bench"}};

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
    if (!a.text("saves-in").empty())
        bench::SaveRows(*model, batch, a.text("saves-in"), a.number("save-interval"), 4).run();
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
              {"supervised", "1"},
              {"saves-in", ""},
              {"save-interval", "5"}}});
    } catch (const std::exception& e) {
        std::fprintf(stderr, "train_step: %s\n", e.what());
        return 1;
    }
}
