// Each entry point of the CUDA runtime and of cuBLASLt fails, at each of its calls or many of them:
// the device Cuda says so by a typed error that names the call, releases everything, and goes on to
// live in the next run.
#include <catch2/catch.hpp>
#include <map>
#include <set>
#include <thread>

#include "eyas/device/cuda.cuh"
#include "eyas/ops/block/all.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/optimizer/clip.hpp"
#include "fake_cuda.hpp"
#include "tests/model/packed_batch.hpp"

using namespace eyas;
using Told = std::vector<std::string>;

namespace {

struct Outcome {
    std::string error;
    bool ended = false;        // the work, before anything is released
    bool came_before = false;  // the failure came before that
};

/// A training step, uploads by each way, a product by a plan that is there, a release at the end.
void work(Outcome& out) {
    const test::packed::Document a(5, 1), b(4, 2);
    const test::packed::Owned rows({{&a, &b}}, 10, true);
    const test::packed::Draft<F32, Cuda> draft(LossType::CrossEntropy, 2, Activations::Keep);
    const Cuda& cuda = draft.model->device();
    const std::vector<std::byte> large(detail::CudaUploads::least_bytes, std::byte{1});
    Tensor on_gpu(DType::U8, {static_cast<std::int64_t>(large.size())}, cuda.memory());
    cuda.upload(large.data(), on_gpu.mutable_view().data, large.size());
    cuda.upload(large.data(), on_gpu.mutable_view().data, 10);
    AdamW<Cuda> optimizer(cuda, draft.model->parameters());
    draft.model->zero_gradients();
    draft.model->forward_backward(rows.batch, 1.f);
    const double norm = global_norm(cuda, std::span(draft.model->parameters()));
    optimizer.step(1e-3, clip_scale(norm, 0.5));
    const auto x = zeros_on(cuda, DType::F32, {64});
    auto y = zeros_on(cuda, DType::F32, {64});
    const float* from = x.as<float>().data();
    const Matmul<float, float> product{Op::None, Op::Transposed,       8, 8, 8, from, 8, from,
                                       8,        y.as<float>().data(), 8};
    cuda.matmul(product);
    cuda.matmul(product);  // by the plan that is there
    cuda.copy(from, y.as<float>().data(), 64);
    if (cuda.peak_bytes() == 0) throw ContractError("no memory was used", "work", "");
    const auto released = zeros_on(cuda, DType::U8, {1});
    cuda.synchronize();
    out.ended = true;
    out.came_before = fake_cuda::failed();
}

/// On a thread of its own, which has no current GPU yet.
Outcome outcome() {
    Outcome out;
    std::thread([&] {
        try {
            work(out);
        } catch (const ResourceError& e) {
            out.error = e.what();
        }
    }).join();
    return out;
}

/// All of few calls; of many the first ones, the last ones and some between.
std::set<int> some_of(int calls) {
    std::set<int> which;
    for (int i = 1; i <= calls; ++i)
        if (calls <= 16 || i <= 4 || i > calls - 4 || i % (calls / 8) == 0) which.insert(i);
    return which;
}

/// What an error about a call has to say.
std::string said_of(const std::string& call) {
    if (call == "kernel launch") return "launch of a kernel";
    return call == "kernel" ? "cudaErrorIllegalAddress" : call;
}

/// What only releases something; nobody can be told.
bool releases(const std::string& call) {
    return call == "cudaFreeHost" || call.find("Destroy") != std::string::npos;
}

int status_of(const std::string& call) {
    if (call.starts_with("cublas")) return CUBLAS_STATUS_INTERNAL_ERROR;
    return call == "kernel" ? cudaErrorIllegalAddress : cudaErrorMemoryAllocation;
}

}  // namespace

TEST_CASE("the call of an entry point that fails is named, and nothing stays") {
    fake_cuda::reset();
    REQUIRE(outcome().ended);
    std::map<std::string, int> calls;
    for (const auto& call : fake_cuda::called()) calls[call] = fake_cuda::calls(call);
    CHECK(calls.size() == 37);
    for (const auto& [call, count] : calls)
        for (const int nth : some_of(count)) {
            INFO(call << ", call " << nth << " of " << count);
            fake_cuda::reset();
            fake_cuda::fail(call, nth, status_of(call));
            const auto out = outcome();
            CHECK(fake_cuda::failed());
            if (!out.error.empty())
                CHECK_THAT(out.error, Catch::Contains(said_of(call)));
            else  // it came when things were released, or was such a call
                CHECK((out.ended && (!out.came_before || releases(call))));
            fake_cuda::reset();
            CHECK(fake_cuda::failures() == Told());
            CHECK(fake_cuda::alive() == Told());
        }
    fake_cuda::reset();
    CHECK(outcome().ended);
}

TEST_CASE("what failed and was told is not told again by the next launch") {
    fake_cuda::reset();
    const Cuda cuda;
    auto x = zeros_on(cuda, DType::F32, {64});
    const std::vector<std::byte> large(detail::CudaUploads::least_bytes, std::byte{1});
    Tensor on_gpu(DType::U8, {static_cast<std::int64_t>(large.size())}, cuda.memory());
    const auto launch = [&] {
        auto* at = x.as<float>().data();
        cuda.for_each(64, [=](std::int64_t i) { at[i] = 1.f; });
        cuda.synchronize();
    };
    SECTION("memory of the GPU") {
        fake_cuda::fail("cudaMallocAsync", 1, cudaErrorMemoryAllocation);
        CHECK_THROWS_AS(zeros_on(cuda, DType::F32, {64}), ResourceError);
        CHECK(fake_cuda::failed());
    }
    SECTION("pinned memory") {
        fake_cuda::fail("cudaHostAlloc", 1, cudaErrorMemoryAllocation);
        CHECK_THROWS_AS(cuda.upload(large.data(), on_gpu.mutable_view().data, large.size()),
                        ResourceError);
        CHECK(fake_cuda::failed());
    }
    SECTION("what a destructor ignores") {
        fake_cuda::fail("cudaEventDestroy", 1, cudaErrorInvalidValue);
        detail::make_event();
        CHECK(fake_cuda::failed());
    }
    CHECK_NOTHROW(launch());
    SECTION("but a fault of the GPU is told by every later call") {
        fake_cuda::fail("kernel", 1, cudaErrorIllegalAddress);
        CHECK_THROWS_AS(launch(), ResourceError);
        CHECK_THROWS_AS(launch(), ResourceError);
        fake_cuda::reset();
    }
    CHECK(fake_cuda::failures() == Told());
}
