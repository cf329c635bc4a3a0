// train_step [--shape S|M|8B|tiny] [--tokens T] [--ttt K] [--steps N] [--precision bf16|fp32]:
// times the EAGLE3 training step on a GPU. The rates count the operations of bench/train_step.cc's
// formula; the peaks beside them are an H100 SXM's dense ones (989 TFLOP/s bf16, 67 fp32).
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "bench/timing.hpp"
#include "bench/train_job.hpp"
#include "eyas/device/cuda.cuh"
#include "eyas/ops/block/all.hpp"

namespace {
using namespace eyas;

/// Attention at the last TTT step, forward and backward, times the number of steps.
template <PrecisionPolicy P>
void attention_alone(const Cuda& cuda, const bench::BenchShape& s, std::int64_t T, std::int64_t ttt,
                     std::size_t runs) {
    using Element = typename P::Element;
    const auto width = s.D / s.H, qkv = s.D + 2 * s.G * width;
    const Tensor rows = zeros_on(cuda, dtype_of<Element>, {T, qkv});
    Tensor ones(DType::I64, {T});
    std::ranges::fill(ones.as<std::int64_t>(), 1);
    const Tensor mask = on_device(cuda, std::move(ones));
    Tensor out = zeros_on(cuda, dtype_of<Element>, {T, qkv}),
           sums = zeros_on(cuda, DType::F32, {T, s.D}),
           log_sum = zeros_on(cuda, DType::F32, {s.H, T});
    const Element* q = rows.as<Element>().data();
    const std::vector<const Element*> k(static_cast<std::size_t>(ttt), q + s.D);
    const std::vector<float*> d(k.size(), sums.as<float>().data());
    const TttAttention<Element> a{
        1, T,   s.H,      s.G,      width, ttt - 1, mask.as<std::int64_t>().data(),
        q, qkv, k.data(), k.data(), qkv};
    Element* o = out.as<Element>().data();
    float* l = log_sum.as<float>().data();
    const auto forward =
        bench::times_of([&] { ttt_attention(cuda, a, o, qkv, l), cuda.synchronize(); }, runs);
    const auto backward = bench::times_of(
        [&] {
            ttt_attention_backward(cuda, a, l, q, qkv, o, qkv, d.data(), d.data());
            cuda.synchronize();
        },
        runs);
    const auto steps = static_cast<double>(ttt);
    std::printf("attention %9.2f ms forward, %.2f backward, of %ld TTT steps, alone\n",
                steps * forward.median * 1e3, steps * backward.median * 1e3, ttt);
}

template <PrecisionPolicy P>
void run(const bench::Arguments& a, double peak) {
    const auto& s = bench::shapes.at(a.text("shape"));
    const std::int64_t T = a.number("tokens"), ttt = a.number("ttt");
    const auto runs = static_cast<std::size_t>(a.number("steps"));
    bench::TrainJob<Eagle3<Cuda, P>> job(s, T, ttt, 1);
    const Cuda& cuda = job.model->device();
    const auto timed = [&](auto f) {
        return bench::times_of([&] { f(), cuda.synchronize(); }, runs);
    };
    job.step();
    const double first = job.loss;
    const auto forward = timed([&] { job.model->evaluate(job.batch()); });
    const auto both = timed([&] { job.model->forward_backward(job.batch(), 1.f); });
    const auto all = timed([&] { job.step(); });
    const double flops = bench::step_flops(s, static_cast<double>(T), static_cast<double>(ttt));
    std::printf("shape %s %s  T %ld  TTT %ld  rows in the loss %.0f  loss %.4f -> %.4f\n",
                a.text("shape").c_str(), a.text("precision").c_str(), T, ttt, job.accepted, first,
                job.loss);
    const auto batch = job.batch();
    const auto bytes = batch.hidden_state.size_bytes(), more = batch.target.size_bytes();
    Tensor there(DType::U8, {static_cast<std::int64_t>(std::max(bytes, more))}, cuda.memory());
    const auto upload = timed([&] {
        cuda.upload(batch.hidden_state.data, there.mutable_view().data, bytes);
        cuda.upload(batch.target.data, there.mutable_view().data, more);
    });
    std::printf("forward   %9.2f ms   (the batch's way to the GPU, pageable, alone: %.2f)\n",
                forward.median * 1e3, upload.median * 1e3);
    attention_alone<P>(cuda, s, T, ttt, runs);
    std::printf("backward  %9.2f ms   (forward and backward less forward)\n",
                (both.median - forward.median) * 1e3);
    std::printf("step      %9.2f ms   (min %.2f, max %.2f, %zu runs)\n", all.median * 1e3,
                all.min * 1e3, all.max * 1e3, runs);
    std::printf("speed     %9.0f tokens/s   %.1f TFLOP/s   MFU %.1f %% of %.0f TFLOP/s\n",
                static_cast<double>(T) / all.median, flops / all.median / 1e12,
                100 * flops / all.median / peak, peak / 1e12);
    std::printf("memory    %9.0f MB of the GPU at the peak\n",
                static_cast<double>(cuda.peak_bytes()) / 1e6);
}
}  // namespace

int main(int argc, char** argv) {
    try {
        const bench::Arguments a{argc,
                                 argv,
                                 {{"shape", "S"},
                                  {"tokens", "512"},
                                  {"ttt", "7"},
                                  {"steps", "5"},
                                  {"precision", "bf16"}}};
        if (a.text("precision") == "fp32")
            run<F32>(a, 67e12);
        else
            run<Bf16>(a, 989e12);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "train_step: %s\n", e.what());
        return 1;
    }
}
