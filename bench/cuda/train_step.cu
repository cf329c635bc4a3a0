// train_step [--shape S|M|L|tiny] [--tokens T] [--ttt K] [--steps N] [--precision bf16|fp32]
// [--attention strips|cudnn] [--graphs 0|1]: times the EAGLE3 training step on a GPU, with 1
// replayed by CUDA graphs. The rates count the operations of step_flops (bench/trainer/shape.hpp);
// the peaks beside them are an H100 SXM's dense ones (989 TFLOP/s bf16, 67 fp32).
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "bench/timing.hpp"
#include "bench/trainer/shape.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/device/cuda.cuh"
#include "eyas/model/eagle3.hpp"
#include "eyas/ops/block/all.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/optimizer/clip.hpp"
#ifdef EYAS_BENCH_CUDNN
#include "examples/cli/cudnn/attention.hpp"
#endif

namespace {
using namespace eyas;

/// Attention at the last TTT step, forward and backward, times the number of steps.
template <PrecisionPolicy P>
void attention_alone(const Cuda& cuda, const bench::StepShape& s, std::int64_t T, std::int64_t ttt,
                     std::size_t runs) {
    using Element = typename P::Element;
    const auto width = s.D / s.H, qkv = s.D + 2 * s.G * width;
    const Tensor rows = zeros_on(cuda, dtype_of<Element>, {T, qkv});
    Tensor ones(DType::I64, {T});
    std::ranges::fill(ones.as<std::int64_t>(), 1);
    const Tensor mask = on_device(cuda, std::move(ones));
    Tensor out = zeros_on(cuda, dtype_of<Element>, {T, qkv}),
           gradient = zeros_on(cuda, dtype_of<Element>, {T, qkv}),
           sums = zeros_on(cuda, DType::F32, {T, s.D}),
           log_sum = zeros_on(cuda, DType::F32, {s.H, T}),
           diagonal = zeros_on(cuda, DType::F32, {s.H, T, ttt});
    const Element* q = rows.as<Element>().data();
    const std::vector<const Element*> k(static_cast<std::size_t>(ttt), q + s.D);
    const std::vector<float*> d(k.size(), sums.as<float>().data());
    Element* o = out.as<Element>().data();
    const TttAttention<Element> a{
        1, T,   s.H,      s.G,      width, ttt - 1, mask.as<std::int64_t>().data(),
        q, qkv, k.data(), k.data(), qkv,   nullptr, true,
        o, qkv};
    float* l = log_sum.as<float>().data();
    const DiagonalColumns columns{diagonal.as<float>().data(), diagonal.as<float>().data()};
    const auto forward =
        bench::times_of([&] { ttt_attention(cuda, a, o, qkv, l), cuda.synchronize(); }, runs);
    const auto backward = bench::times_of(
        [&] {
            ttt_attention_backward(cuda, a, l, q, qkv, gradient.as<Element>().data(), qkv, d[0],
                                   d[0], columns);
            ttt_attention_backward_diagonal(cuda, a, columns, q, qkv, d.data(), d.data());
            cuda.synchronize();
        },
        runs);
    const auto steps = static_cast<double>(ttt);
    std::printf("attention %9.2f ms forward, %.2f backward, of %ld TTT steps, alone\n",
                steps * forward.median * 1e3, steps * backward.median * 1e3, ttt);
}

/// The batch's features as a capture in the model's precision has them.
template <class Element>
Tensor in_precision(const TensorView& v) {
    Tensor t(dtype_of<Element>, v.shape);
    convert_into(v, t.mutable_view());
    return t;
}

/// The way of a batch's features to the GPU, from pageable memory, alone: seconds.
double upload_alone(const Cuda& cuda, const Batch& batch, std::size_t runs) {
    const auto bytes = batch.hidden_state.size_bytes(), more = batch.target.size_bytes();
    Tensor there(DType::U8, {static_cast<std::int64_t>(std::max(bytes, more))}, cuda.memory());
    const auto upload = [&] {
        cuda.upload(batch.hidden_state.data, there.mutable_view().data, bytes);
        cuda.upload(batch.target.data, there.mutable_view().data, more);
        cuda.synchronize();
    };
    return bench::times_of(upload, runs).median;
}

void choose_attention(const Cuda& cuda, const std::string& name) {
    if (name == "strips") return;
    if (name != "cudnn")
        throw ContractError("attention is '" + name + "'", "train_step", "Use strips or cudnn");
#ifdef EYAS_BENCH_CUDNN
    cuda.attend_by(cli::cudnn_attention(cuda.ordinal()));
#else
    throw ContractError("this train_step was built without cuDNN", "--attention cudnn",
                        "Build it where cuDNN 9 and the headers of cudnn-frontend are");
#endif
}

template <PrecisionPolicy P>
void run(const bench::Arguments& a, double peak) {
    using Element = typename P::Element;
    const auto& s = bench::step_shapes().at(a.text("shape"));
    const std::int64_t T = a.number("tokens"), ttt = a.number("ttt");
    const auto runs = static_cast<std::size_t>(a.number("steps"));
    const auto head = bench::random_tensor({s.V, s.D}, 1);
    const bench::BenchBatch wide(s, T, T, head);
    const auto hidden = in_precision<Element>(wide.hidden),
               last = in_precision<Element>(wide.target);
    auto batch = wide.batch;
    batch.hidden_state = hidden, batch.target = last;
    Eagle3Options options;
    options.ttt_length = ttt;
    options.replay_steps = a.number("graphs") != 0;
    Eagle3<Cuda, P> model(bench::config_of(s, T), options, bench::first_tokens(s.V, s.W),
                          FrozenTarget{head, head}, 1);
    const Cuda& cuda = model.device();
    choose_attention(cuda, a.text("attention"));
    AdamW<Cuda> optimizer(cuda, model.parameters());
    double loss = 0, rows = 0;
    const auto step = [&] {
        model.zero_gradients();
        const auto& m = model.forward_backward(batch, 1.f);
        loss = m.total_loss, rows = m.acceptance_rows[0];
        const double norm = global_norm(cuda, std::span(model.parameters()));
        optimizer.step(1e-4, clip_scale(norm, 0.5));
    };
    const auto timed = [&](auto f) {
        return bench::times_of([&] { f(), cuda.synchronize(); }, runs);
    };
    step();
    const double first = loss;
    if (options.replay_steps) step();  // records
    const auto forward = timed([&] { model.evaluate(batch); });
    const auto both = timed([&] { model.forward_backward(batch, 1.f); });
    const auto all = timed(step);
    const double flops = bench::step_flops(s, T, ttt);
    std::printf("shape %s %s  T %ld  TTT %ld%s  rows in the loss %.0f  loss %.4f -> %.4f\n",
                a.text("shape").c_str(), a.text("precision").c_str(), T, ttt,
                options.replay_steps ? "  by graphs" : "", rows, first, loss);
    std::printf("upload    %9.2f ms\n", upload_alone(cuda, batch, runs) * 1e3);
    std::printf("forward   %9.2f ms   (upload in it)\n", forward.median * 1e3);
    std::printf("backward  %9.2f ms   (forward and backward less forward)\n",
                (both.median - forward.median) * 1e3);
    attention_alone<P>(cuda, s, T, ttt, runs);
    std::printf("attention by %s\n", cuda.attention_use().text().c_str());
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
                                  {"precision", "bf16"},
                                  {"attention", "strips"},
                                  {"graphs", "0"}}};
        if (a.text("precision") == "fp32")
            run<F32>(a, 67e12);
        else
            run<Bf16>(a, 989e12);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "train_step: %s\n", e.what());
        return 1;
    }
}
