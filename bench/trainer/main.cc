// trainer [--shape S|M|tiny] [--tokens T,T,…] [--ttt K] [--precision f32|bf16]
//         [--activations keep|recompute] [--packed 0] [--supervised F] [--steps N] [--stages 1]
//         [--roofline 0] [--saves-in DIR] [--save-interval N]
// Times the EAGLE3 training step (zero, forward, backward, clip, AdamW) on random features, beside
// the same matrix products alone in the same run (with --roofline 0 without them), and prints the
// memory the step adds and the process's highest; with --stages 1 also where the time goes, and
// with --saves-in how long training stands still for checkpoints in DIR. A fraction F of the rows
// is in the loss. N steps are timed after one that warms up; with --steps 0 that one is.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>

#include "bench/trainer/roofline.hpp"
#include "bench/trainer/saves.hpp"
#include "bench/trainer/shape.hpp"
#include "bench/trainer/stages.hpp"
#include "eyas/model/eagle3.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/optimizer/clip.hpp"

namespace {
using namespace eyas;
using namespace eyas::bench;

/// Resident memory in MB: "VmRSS" now, "VmHWM" at its highest.
double memory_mb(const char* key) {
    std::ifstream in("/proc/self/status");
    for (std::string line; std::getline(in, line);)
        if (line.starts_with(key)) return std::stod(line.substr(std::strlen(key) + 1)) / 1024.0;
    return 0;
}

void forget_highest() { std::ofstream("/proc/self/clear_refs") << "5"; }

/// Optimizer time of the timed steps, beside what the device's clock saw of the model.
struct Outside {
    double zero = 0, clip = 0, update = 0;
};

void print_stages(const StepShape& s, const StageClock& clock, const Outside& outside,
                  double model_seconds, double steps) {
    const auto row = [&](const std::string& name, const Work& w) {
        std::printf("  %-28s %8.1f ms", name.c_str(), w.seconds / steps * 1e3);
        if (w.flops > 0) std::printf(" %8.1f GFLOP/s", w.flops / w.seconds / 1e9);
        std::printf("\n");
    };
    auto layers = layers_of(s);
    layers.push_back({"fc", s.D, 3 * s.D});
    const char* kinds[] = {"forward", "input gradient", "weight gradient"};
    double told = 0;
    for (const auto& [what, work] : clock.products) {
        std::string name = "teacher";
        for (const auto& l : layers)
            if (what.first == std::pair(l.out, l.in)) name = l.name;
        row(name + ", " + kinds[static_cast<int>(what.second)], work);
        told += work.seconds;
    }
    row("attention", clock.attention);
    row("rows (norms, softmax, …)", clock.loops);
    told += clock.attention.seconds + clock.loops.seconds;
    row("copies, one thread", {model_seconds - told});
    row("gradients to zero", {outside.zero});
    row("norm of the gradients", {outside.clip});
    row("AdamW", {outside.update});
}

template <PrecisionPolicy P>
void run_tokens(const Arguments& a, std::int64_t T) {
    const auto& s = step_shapes().at(a.text("shape"));
    const std::int64_t ttt = a.number("ttt");
    const auto steps = static_cast<std::size_t>(a.number("steps"));
    const double alone = a.number("roofline") != 0 ? products_alone(s, T, ttt, 3) : NAN;
    StageClock clock;
    Eagle3Options options;
    options.ttt_length = ttt;
    options.activations =
        a.text("activations") == "keep" ? Activations::Keep : Activations::Recompute;
    options.packed_weights = a.number("packed") != 0;
    std::unique_ptr<Eagle3<TimedCpu, P>> model;
    std::unique_ptr<BenchBatch> batch;
    {
        const auto head = random_tensor({s.V, s.D}, 1);
        model =
            std::make_unique<Eagle3<TimedCpu, P>>(config_of(s, T), options, first_tokens(s.V, s.W),
                                                  FrozenTarget{head, head}, 1, TimedCpu(clock));
        const auto supervised =
            static_cast<std::int64_t>(a.real("supervised") * static_cast<double>(T));
        batch = std::make_unique<BenchBatch>(s, T, supervised, head);
    }
    const Cpu cpu;
    AdamW<Cpu> optimizer(cpu, model->parameters(), AdamWOptions{});
    forget_highest();
    const double before = memory_mb("VmRSS:");
    double in_loss = 0, model_seconds = 0;
    Outside outside;
    bool warm = false;
    const auto t = times_of(
        [&] {
            outside.zero += seconds_of([&] { model->zero_gradients(); });
            model_seconds += seconds_of(
                [&] { in_loss = model->forward_backward(batch->batch, 1.f).acceptance_rows[0]; });
            double norm = 0;
            outside.clip +=
                seconds_of([&] { norm = global_norm(cpu, std::span(model->parameters())); });
            outside.update += seconds_of([&] { optimizer.step(1e-4, clip_scale(norm, 0.5)); });
            if (!std::exchange(warm, true)) {  // only the runs that count
                clock.clear();
                outside = {};
                model_seconds = 0;
            }
        },
        steps);
    const double flops = step_flops(s, T, ttt);
    std::printf("%6ld %6.0f %8.3f %8.3f %8.3f %9.1f %8.1f %9.1f %6.0f %% %8.0f %8.0f\n", T, in_loss,
                t.median, t.min, t.max, static_cast<double>(T) / t.median, flops / t.median / 1e9,
                flops / alone / 1e9, 100 * alone / t.median, memory_mb("VmHWM:") - before,
                memory_mb("VmHWM:"));
    if (a.number("stages") != 0)
        print_stages(s, clock, outside, model_seconds, static_cast<double>(steps));
    if (!a.text("saves-in").empty())
        SaveRows(*model, batch->batch, a.text("saves-in"), a.number("save-interval"), 4).run();
    std::fflush(stdout);
}

void run(const Arguments& a) {
    std::printf(
        "shape %s, TTT %s, %s, %s; memory: MB that the step adds to weights, target head "
        "and optimizer;\nalone: the step's matrix products, attention's included, float32, without "
        "the "
        "step\n",
        a.text("shape").c_str(), a.text("ttt").c_str(), a.text("precision").c_str(),
        a.text("activations").c_str());
    std::printf("%6s %6s %8s %8s %8s %9s %8s %9s %8s %8s %8s\n", "tokens", "loss", "s", "min",
                "max", "tokens/s", "GFLOP/s", "alone", "of it", "memory", "process");
    std::istringstream list(a.text("tokens"));
    for (std::string tokens; std::getline(list, tokens, ',');)
        a.text("precision") == "bf16" ? run_tokens<Bf16>(a, std::stol(tokens))
                                      : run_tokens<F32>(a, std::stol(tokens));
}
}  // namespace

int main(int argc, char** argv) {
    try {
        run({argc,
             argv,
             {{"shape", "S"},
              {"tokens", "256,512,1024,2048"},
              {"ttt", "7"},
              {"precision", "f32"},
              {"activations", "keep"},
              {"packed", "1"},
              {"supervised", "1"},
              {"steps", "5"},
              {"stages", "0"},
              {"roofline", "1"},
              {"saves-in", ""},
              {"save-interval", "5"}}});
    } catch (const std::exception& e) {
        std::fprintf(stderr, "trainer: %s\n", e.what());
        return 1;
    }
}
