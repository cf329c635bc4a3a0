// Steps that are recorded and replayed (Eagle3Options::replay_steps) on the device Cuda and a CUDA
// runtime of the host: the bits, the calls, and what happens where one fails.
#include <catch2/catch.hpp>
#include <optional>
#include <stdexcept>

#include "eyas/device/cuda.cuh"
#include "eyas/ops/block/all.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/optimizer/clip.hpp"
#include "fake_cuda.hpp"
#include "reference_sdpa.hpp"
#include "tests/model/packed_batch.hpp"

using namespace eyas;
using test::packed::Document;
using test::packed::Owned;
using Told = std::vector<std::string>;

namespace {

constexpr std::int64_t steps_of_ttt = 3;

template <class P>
struct Training {
    explicit Training(bool replays, Activations activations = Activations::Keep)
        : draft(LossType::CrossEntropy, steps_of_ttt, activations, true, replays),
          optimizer(draft.model->device(), draft.model->parameters()) {}

    void step(const Batch& batch) {
        auto& model = *draft.model;
        model.zero_gradients();
        losses.push_back(model.forward_backward(batch, 1.f).total_loss);
        const double norm = global_norm(model.device(), std::span(model.parameters()));
        optimizer.step(1e-2, clip_scale(norm, 0.5));
        model.device().synchronize();
    }
    void evaluate(const Batch& batch) { losses.push_back(draft.model->evaluate(batch).total_loss); }
    /// The bits of all parameters.
    std::vector<std::byte> values() const {
        std::vector<std::byte> all;
        for (const auto& p : draft.model->parameters()) {
            const auto there = on_host(draft.model->device(), p.value);
            const auto bytes = there.view().bytes();
            all.insert(all.end(), bytes.begin(), bytes.end());
        }
        return all;
    }

    test::packed::Draft<P, Cuda> draft;
    AdamW<Cuda> optimizer;
    std::vector<double> losses;
};

/// Batches of several shapes; those that are packed do not attend to the first keys of a row.
struct Batches {
    Document a{9, 1}, b{5, 2}, c{12, 3}, d{7, 4};
    Owned two{{{&a}, {&b}}, 12, false}, other_two{{{&c}, {&d}}, 12, false},
        packed{{{&b, &d}, {&a}}, 12, true}, one{{{&d}}, 10, false},
        large{{{&a}, {&c}, {&d}}, 30, false};
};

/// `f` trains plainly, then with replays, their work queued and, where `eager`, done at once: the
/// same bits.
template <class P, class F>
void same_bits(const F& f, bool eager, Activations activations = Activations::Keep) {
    fake_cuda::reset();
    const auto train = [&](bool replays) {
        Training<P> t(replays, activations);
        f(t);
        return std::pair(t.losses, t.values());
    };
    const auto plain = train(false);
    CHECK(fake_cuda::calls("cudaStreamBeginCapture") == 0);
    for (const bool at_once : {false, true}) {
        if (at_once && !eager) continue;
        fake_cuda::reset();
        fake_cuda::eager(at_once);
        const auto replayed = train(true);
        fake_cuda::eager(false);
        CHECK(fake_cuda::calls("cudaStreamBeginCapture") > 0);
        CHECK(replayed.first == plain.first);
        CHECK(replayed.second == plain.second);
    }
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

/// x[i] += 1.
struct Increment {
    float* x;
    EYAS_HD void operator()(std::int64_t i) const { x[i] += 1; }
};

/// 32 zeros of a GPU, and how often all were incremented.
struct Counter {
    Cuda cuda;
    Tensor zeros = zeros_on(cuda, DType::F32, {32});
    float* x = zeros.as<float>().data();

    void increment() const { cuda.for_each(32, Increment{x}); }
    float count() const {
        const auto host = on_host(cuda, zeros.view());
        const auto all = host.as<float>();
        CHECK(std::ranges::equal(all, std::vector<float>(32, all[0])));
        return all[0];
    }
};

}  // namespace

TEMPLATE_TEST_CASE("a training that replays its steps has the bits of one that does not", "", F32,
                   Bf16) {
    const Batches b;
    for (const auto activations : {Activations::Keep, Activations::Recompute})
        same_bits<TestType>(
            [&](auto& t) {
                for (const auto* batch :
                     {&b.two, &b.other_two, &b.one, &b.two, &b.packed, &b.packed, &b.one,
                      &b.other_two, &b.packed, &b.one, &b.large, &b.two, &b.large, &b.packed,
                      &b.two, &b.large, &b.other_two, &b.packed})
                    t.step(batch->batch);  // `large` makes the arena anew
                t.evaluate(b.two.batch), t.evaluate(b.large.batch);
                t.step(b.two.batch);
            },
            activations == Activations::Keep, activations);
}

TEST_CASE("a library that is chosen for attention in mid-run changes what is replayed") {
    const Batches b;
    const auto library = std::make_shared<fake_cuda::ReferenceSdpa>();
    same_bits<Bf16>(
        [&](auto& t) {
            const auto few = [&] {
                for (const auto* batch : {&b.two, &b.packed, &b.two, &b.packed, &b.other_two})
                    t.step(batch->batch);
            };
            const Cuda& cuda = t.draft.model->device();
            few();
            cuda.attend_by(library);
            few();
            CHECK(cuda.attention_use().taken > 0);
            cuda.attend_by(nullptr);
            few();
        },
        true);
}

TEST_CASE("two parts of a step are recorded for each shape, once, and launched from then on") {
    const Batches b;
    Training<F32> training(true);
    struct Calls {
        int begun, ended, launches, kernel_launches, products, kernels;
        std::vector<std::size_t> final;  // parameters whose gradients are, in their order
    };
    const auto calls_of = [&](const Owned& batch) {
        fake_cuda::reset();
        std::vector<std::size_t> final;
        training.draft.model->forward_backward(batch.batch, 1.f,
                                               [&](std::size_t p) { final.push_back(p); });
        training.draft.model->device().synchronize();
        const auto n = [](const char* call) { return fake_cuda::calls(call); };
        CHECK(n("cudaGraphInstantiate") == n("cudaStreamEndCapture"));
        return Calls{n("cudaStreamBeginCapture"),
                     n("cudaStreamEndCapture"),
                     n("cudaGraphLaunch"),
                     n("kernel launch"),
                     n("cublasLtMatmul"),
                     n("kernel"),
                     final};
    };
    const auto plain = calls_of(b.two), recorded = calls_of(b.other_two),
               replayed = calls_of(b.two);
    CHECK((plain.begun == 0 && plain.launches == 0));
    CHECK((recorded.begun == 2 && recorded.ended == 2 && recorded.launches == 2));
    CHECK(recorded.kernel_launches == plain.kernel_launches);
    CHECK((replayed.begun == 0 && replayed.launches == 2));
    CHECK(replayed.kernel_launches < plain.kernel_launches / 2);
    CHECK(replayed.products < plain.products / 2);
    CHECK(replayed.kernels == plain.kernels);
    CHECK(plain.final.size() > 0);
    CHECK((recorded.final == plain.final && replayed.final == plain.final));
    CHECK(recorded.kernels == plain.kernels);
    calls_of(b.one), calls_of(b.packed);
    CHECK(calls_of(b.packed).begun == 2);
    CHECK(calls_of(b.one).begun == 2);
    CHECK(calls_of(b.two).begun == 0);
    fake_cuda::reset();
    training.evaluate(b.two.batch);  // the forward is the training's
    CHECK(fake_cuda::calls("cudaGraphLaunch") == 1);
    CHECK(fake_cuda::calls("cudaStreamBeginCapture") == 0);
}

TEST_CASE("of more shapes than recordings are kept none is recorded in vain") {
    const Document a(4, 1);
    std::vector<Owned> shapes;
    for (std::int64_t tokens = 5; tokens < 14; ++tokens)
        shapes.emplace_back(std::vector<test::packed::Row>{{&a}}, tokens, false);
    const auto run = [&](std::size_t count) {
        Training<F32> t(true);
        t.step(shapes.back().batch);  // the largest
        fake_cuda::reset();
        for (int round = 0; round < 3; ++round)
            for (std::size_t i = 0; i < count; ++i) t.step(shapes[i].batch);
        return fake_cuda::calls("cudaStreamBeginCapture");
    };
    CHECK(run(8) == 16);
    CHECK(run(9) == 0);
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("a call that fails while a step is recorded is named, and the next step works") {
    const Batches b;
    Training<F32> plain(false);
    for (int i = 0; i < 4; ++i) plain.step(b.two.batch);
    // The nth of the second forward_backward; the first ones after the rotations are captured.
    const std::vector<std::pair<std::string, int>> which{
        {"cudaStreamBeginCapture", 1}, {"cudaStreamBeginCapture", 2}, {"cudaStreamEndCapture", 1},
        {"cudaStreamEndCapture", 2},   {"cudaGraphInstantiate", 1},   {"cudaGraphInstantiate", 2},
        {"cudaGraphLaunch", 1},        {"cudaGraphLaunch", 2},        {"cudaMallocAsync", 1},
        {"cudaFreeAsync", 1},          {"cublasLtMatmul", 1},         {"kernel launch", 7}};
    for (const auto& [call, nth] : which) {
        INFO(call << ", call " << nth);
        {
            Training<F32> t(true);
            t.step(b.two.batch);
            fake_cuda::reset();
            const bool of_cublas = call.starts_with("cublas");
            fake_cuda::fail(
                call, nth,
                of_cublas ? int{CUBLAS_STATUS_INTERNAL_ERROR} : int{cudaErrorMemoryAllocation});
            const auto said = call == "kernel launch" ? "launch of a kernel" : call;
            t.draft.model->zero_gradients();
            CHECK_THROWS_WITH(t.draft.model->forward_backward(b.two.batch, 1.f),
                              Catch::Contains(said));
            CHECK(fake_cuda::failed());
            if (call.starts_with("cudaStream") || call == "cudaGraphInstantiate")
                CHECK(fake_cuda::calls("cudaGraphLaunch") == nth - 1);
            fake_cuda::reset();
            for (int i = 1; i < 4; ++i) t.step(b.two.batch);
            CHECK(fake_cuda::calls("cudaStreamBeginCapture") >= 1 - (call == "cudaGraphLaunch"));
            CHECK(t.losses == plain.losses);
            CHECK(t.values() == plain.values());
            CHECK(fake_cuda::failures() == Told());
        }
    }
    const std::string trim = "cudaDeviceGraphMemTrim";
    for (const std::string& call :
         {std::string("cudaGraphDestroy"), std::string("cudaGraphExecDestroy"), trim}) {
        Training<F32> t(true);
        for (int i = 0; i < 2; ++i) t.step(b.two.batch);
        fake_cuda::reset();
        fake_cuda::fail(call, 1, cudaErrorInvalidValue);  // nobody can be told
        t.step(b.large.batch);
        CHECK(fake_cuda::failed());
        CHECK(fake_cuda::calls(call) == (call == trim ? 1 : 2));
        fake_cuda::reset();
    }
    CHECK(fake_cuda::failures() == Told());
}

TEST_CASE("a kernel's fault in a replay ends the step, and nothing stays") {
    const Batches b;
    {
        Training<F32> t(true);
        for (int i = 0; i < 3; ++i) t.step(b.two.batch);
        fake_cuda::reset();
        fake_cuda::fail("kernel", 20, cudaErrorIllegalAddress);
        CHECK_THROWS_WITH(t.step(b.two.batch), Catch::Contains("cudaErrorIllegalAddress"));
        CHECK(fake_cuda::failed());
    }
    fake_cuda::reset();
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("work is recorded without being done, and done as often as it is replayed") {
    for (const bool eager : {false, true}) {
        fake_cuda::eager(eager);
        const Counter c;
        {
            const auto recording = c.cuda.record([&] {
                const Tensor inside(DType::F32, {32}, c.cuda.memory());
                c.increment(), c.increment();
            });
            CHECK(c.count() == 0);
            c.cuda.replay(recording);
            CHECK(c.count() == 2);
            c.increment();
            c.cuda.replay(recording);
            c.cuda.replay(recording);
        }  // while its work is queued
        CHECK(c.count() == 7);
    }
    fake_cuda::eager(false);
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("work that throws while it is recorded leaves the device as it was") {
    const Counter c;
    const auto fails = [&] {
        const Tensor inside(DType::F32, {100}, c.cuda.memory());
        c.increment();
        throw std::runtime_error("of its own");
    };
    CHECK_THROWS_WITH(c.cuda.record(fails), "of its own");
    CHECK(fake_cuda::failures() == Told());
    CHECK_THROWS_WITH(
        c.cuda.record([&] { c.cuda.synchronize(); }),
        Catch::Contains("cudaStreamSynchronize") && Catch::Contains("Do without recordings"));
    CHECK(fake_cuda::failures() == Told{"cudaStreamSynchronize: of a stream that captures"});
    CHECK(c.count() == 0);
    c.cuda.replay(c.cuda.record([&] { c.increment(); }));
    CHECK(c.count() == 1);
    CHECK(fake_cuda::failures() == Told());
}

TEST_CASE("a graph's memory is its own, starts anew, counts, and goes back") {
    const Counter c;
    const auto reserved = [] {
        std::uint64_t bytes = 0;
        CHECK(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrReservedMemCurrent, &bytes) ==
              cudaSuccess);
        return bytes;
    };
    const std::int64_t n = 1 << 20;
    Replays<Cuda, int> replays(true);
    const auto run = [&](int key, bool again) {
        replays.run(
            c.cuda, key,
            [&] {
                const Tensor inside(DType::F32, {n}, c.cuda.memory());
                auto* y = const_cast<float*>(inside.as<float>().data());
                c.cuda.for_each(
                    32, [=, x = c.x](std::int64_t i) { x[i] += y[i] == y[i] ? 100.f : 1.f; });
                c.cuda.zero(y, n * sizeof(float));
                c.cuda.for_each(32, [=, x = c.x](std::int64_t i) { x[i] += y[i]; });
            },
            again);
    };
    fake_cuda::reset();
    run(1, true);  // plainly
    const auto of_pool = c.cuda.peak_bytes();
    for (int i = 2; i <= 4; ++i) {
        run(1, true);
        CHECK(c.count() == static_cast<float>(i));  // it was NaN
    }
    run(1, false);  // is there, so it is replayed
    for (int i = 0; i < 3; ++i) run(2, false);
    CHECK(c.count() == 8);
    CHECK(fake_cuda::calls("cudaStreamBeginCapture") == 1);
    CHECK(fake_cuda::calls("cudaGraphLaunch") == 4);
    CHECK(c.cuda.peak_bytes() > of_pool);  // 4 MB, more than any graph here had before
    CHECK(reserved() >= n * sizeof(float));
    replays.forget();
    CHECK(reserved() == 0);
    CHECK(fake_cuda::failures() == Told());
}

TEST_CASE("a device that records nothing does the work each time") {
    static_assert(!RecordingDevice<Cpu>);
    static_assert(RecordingDevice<Cuda>);
    Replays<Cpu, int> host(true);
    Replays<Cuda, int> off(false);
    const Counter c;
    int times = 0;
    for (int i = 0; i < 3; ++i) {
        host.run(Cpu(), 1, [&] { ++times; });
        off.run(c.cuda, 1, [&] { ++times; });
    }
    host.forget();
    CHECK(times == 6);
}
