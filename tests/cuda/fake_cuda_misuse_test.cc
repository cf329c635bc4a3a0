// The CUDA runtime of the host is tested itself: it tells each kind of misuse that it claims to.
#include <cublasLt.h>

#include <array>
#include <catch2/catch.hpp>

#include "eyas/device/cuda_launch.cuh"
#include "fake_cuda.hpp"
#include "misuse_streams.hpp"

using namespace eyas;
using namespace eyas::test::misuse;
using Told = std::vector<std::string>;

TEST_CASE("memory that is released twice, or is no memory") {
    Streams s;
    float* p = make_floats(4, s.a);
    require(cudaFreeAsync(p, s.a));
    CHECK(cudaFreeAsync(p, s.a) != cudaSuccess);
    CHECK(told() == "cudaFreeAsync: memory that was released");
    require(cudaStreamSynchronize(s.a));
    CHECK(cudaFreeAsync(p, s.a) != cudaSuccess);
    CHECK(told() == "cudaFreeAsync: memory that was released");
    CHECK(cudaFreeAsync(s.x + 1, s.a) != cudaSuccess);
    CHECK(told() == "cudaFreeAsync: memory that was never allocated");
    float* pinned = make_pinned(4);
    CHECK(cudaFreeAsync(pinned, s.a) != cudaSuccess);
    CHECK(told() == "cudaFreeAsync: memory of another kind");
    require(cudaFreeHost(pinned));
    CHECK(cudaFreeHost(pinned) != cudaSuccess);
    CHECK(told() == "cudaFreeHost: memory that was released");
}

TEST_CASE("ranges outside of live memory") {
    Streams s;
    CHECK(copy(s.x, s.host.data(), 33, up, s.a) != 0);
    CHECK(told() == "cudaMemcpyAsync: 132 bytes beyond the end of device memory");
    CHECK(copy(s.host.data(), s.x + 1, 32, down, s.a) != 0);
    CHECK(told() == "cudaMemcpyAsync: 128 bytes beyond the end of device memory");
    CHECK(cudaMemsetAsync(s.x, 0, 129, s.a) != cudaSuccess);
    CHECK(told() == "cudaMemsetAsync: 129 bytes beyond the end of device memory");
    CHECK(copy(s.x, s.host.data(), 4, across, s.a) != 0);
    CHECK(told() == "cudaMemcpyAsync: 16 bytes outside of device memory");
    require(copy(s.host.data(), s.x, 4, down, s.a));
    require(cudaStreamSynchronize(s.a));
    CHECK(copy(s.x, s.x, 4, up, s.a) != 0);  // by its kind a copy from the host
    CHECK(told() == "cudaMemcpyAsync: device memory where the host's should be");
    float* pinned = make_pinned(4);
    CHECK(copy(s.x, pinned + 1, 4, up, s.a) != 0);
    CHECK(told() == "cudaMemcpyAsync: beyond the end of pinned memory");
    require(cudaFreeHost(pinned));
    float* p = make_floats(4, s.a);
    require(cudaFreeAsync(p, s.a));
    CHECK(cudaMemsetAsync(p, 0, 4, s.a) != cudaSuccess);
    CHECK(told() == "cudaMemsetAsync: 4 bytes of memory that was released");
    require(cudaStreamSynchronize(s.a));
    CHECK(cudaMemsetAsync(p, 0, 4, s.a) != cudaSuccess);
    CHECK(told() == "cudaMemsetAsync: 4 bytes of memory that was released");
}

TEST_CASE("memory that another stream has not made, or has released") {
    Streams s;
    float* p = make_floats(4, s.a);
    require(cudaMemsetAsync(p, 0, 16, s.b));
    require(cudaStreamSynchronize(s.b));
    CHECK(told() ==
          "cudaMemsetAsync: 16 bytes of memory whose stream has not come to its allocation");
    require(cudaStreamSynchronize(s.a));
    require(cudaMemsetAsync(p, 0, 16, s.b));
    require(cudaFreeAsync(p, s.a));
    require(cudaStreamSynchronize(s.a));
    require(cudaStreamSynchronize(s.b));
    CHECK(told() == "cudaMemsetAsync: 16 bytes of memory that was released");
}

TEST_CASE("a synchronisation that is missing") {
    Streams s;
    const std::array<float, 32> ones = [] {
        std::array<float, 32> v;
        v.fill(1);
        return v;
    }();
    require(copy(s.x, ones.data(), 32, up, s.a));
    require(copy(s.host.data(), s.x, 32, down, s.a));
    CHECK(std::isnan(s.host[0]));  // it is too early to read
    require(cudaStreamSynchronize(s.a));
    CHECK(s.host == ones);

    float* pinned = make_pinned(32);
    std::fill_n(pinned, 32, 2.f);
    require(copy(s.x, pinned, 32, up, s.a));
    pinned[3] = 7;  // it is too early to write
    require(cudaStreamSynchronize(s.a));
    CHECK(told() == "cudaMemcpyAsync: pinned memory changed before it was copied");
    require(copy(s.x, pinned, 32, up, s.a));
    CHECK(cudaFreeHost(pinned) != cudaSuccess);
    CHECK(told() == "cudaFreeHost: pinned memory under a copy");
    require(cudaStreamSynchronize(s.a));
    require(cudaFreeHost(pinned));

    std::array<float, 32> pageable = ones;
    require(copy(s.x, pageable.data(), 32, up, s.a));
    pageable.fill(9);  // it was read at once
    require(copy(s.host.data(), s.x, 32, down, s.a));
    require(cudaStreamSynchronize(s.a));
    CHECK(s.host == ones);
}

TEST_CASE("an event that is not waited for") {
    Streams s;
    const auto event = make_event();
    for (const bool waits : {false, true}) {
        detail::launch_kernel(1, 32, s.a, Increment{s.x});
        require(cudaEventRecord(event, s.a));
        detail::launch_kernel(1, 32, s.a, Increment{s.x});  // after the event: nobody's business
        if (waits) require(cudaStreamWaitEvent(s.b, event, 0));
        require(copy(s.host.data(), s.x, 32, down, s.b));
        require(cudaStreamSynchronize(s.b));
        CHECK(s.host[0] == (waits ? 3.f : 0.f));
        require(cudaStreamSynchronize(s.a));
    }
    detail::launch_kernel(1, 32, s.a, Increment{s.x});
    require(cudaEventRecord(event, s.a));
    int asked = 1;
    while (cudaEventQuery(event) == cudaErrorNotReady) ++asked;
    CHECK(asked == 2);
    require(cudaEventSynchronize(event));
    require(cudaStreamQuery(s.a));
    require(cudaEventDestroy(event));
}

TEST_CASE("handles that do not exist") {
    Streams s;
    const auto event = make_event();
    CHECK(cudaStreamWaitEvent(s.a, event, 0) != cudaSuccess);
    CHECK(told() == "cudaStreamWaitEvent: an event that was never recorded");
    require(cudaEventDestroy(event));
    CHECK(cudaEventDestroy(event) != cudaSuccess);
    CHECK(told() == "cudaEventDestroy: an event that does not exist");
    CHECK(cudaEventRecord(event, s.a) != cudaSuccess);
    CHECK(told() == "cudaEventRecord: an event that does not exist");
    const auto stream = make_stream();
    require(cudaStreamDestroy(stream));
    CHECK(cudaStreamDestroy(stream) != cudaSuccess);
    CHECK(told() == "cudaStreamDestroy: a stream that does not exist");
    CHECK(cudaMemsetAsync(s.x, 0, 4, stream) != cudaSuccess);
    CHECK(told() == "cudaMemsetAsync: a stream that does not exist");
}

TEST_CASE("launches that no GPU takes") {
    Streams s;
    const auto launch = [&](std::int64_t blocks, int threads, cudaStream_t stream) {
        detail::launch_kernel(blocks, threads, stream, Increment{s.x});
        CHECK(cudaGetLastError() != cudaSuccess);
        CHECK(cudaGetLastError() == cudaSuccess);  // it was told
        return told();
    };
    CHECK(launch(0, 32, s.a) == "kernel launch: 0 blocks of 32 threads");
    CHECK(launch(1, 48, s.a) == "kernel launch: 1 blocks of 48 threads");
    CHECK(launch(1, 128, s.a) == "kernel launch: 1 blocks of 128 threads");
    CHECK(launch(std::int64_t{1} << 31, 32, s.a) ==
          "kernel launch: 2147483648 blocks of 32 threads");
    fake_cuda::devices(2);
    require(cudaSetDevice(1));
    CHECK(launch(1, 32, s.a) == "kernel launch: a stream of another GPU than the current one");
    require(cudaSetDevice(0));
    fake_cuda::devices(1);

    fake_cuda::fail("kernel launch", 1, cudaErrorLaunchFailure);
    detail::launch_kernel(1, 32, s.a, Increment{s.x});
    detail::launch_kernel(1, 32, s.a, Increment{s.x});
    CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
    CHECK(told() == "kernel launch: an earlier call's error was not taken");
    fake_cuda::reset();
}

TEST_CASE("a kernel's fault stays") {
    {
        Streams s;
        fake_cuda::reset();
        fake_cuda::fail("kernel", 2, cudaErrorIllegalAddress);
        for (int i = 0; i < 3; ++i) detail::launch_kernel(1, 32, s.a, Increment{s.x});
        CHECK(cudaGetLastError() == cudaSuccess);  // none has begun
        CHECK_FALSE(fake_cuda::failed());
        CHECK(cudaStreamSynchronize(s.a) == cudaErrorIllegalAddress);
        CHECK(fake_cuda::failed());
        CHECK(fake_cuda::calls("kernel") == 2);
        CHECK(cudaMemsetAsync(s.x, 0, 4, s.a) == cudaErrorIllegalAddress);
    }
    fake_cuda::reset();
}

TEST_CASE("what is not released is known") {
    const auto stream = make_stream();
    const auto event = make_event();
    float *p = make_floats(4, stream), *pinned = make_pinned(2);
    cublasLtHandle_t handle = nullptr;
    cublasLtMatrixLayout_t layout = nullptr;
    require(cublasLtCreate(&handle));
    require(cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, 2, 2, 2));
    auto alive = fake_cuda::alive();
    std::ranges::sort(alive);
    CHECK(alive == Told{"16 bytes of device memory", "8 bytes of pinned memory", "a cublasLtHandle",
                        "a cublasLtMatrixLayout", "a stream", "an event"});
    require(cublasLtMatrixLayoutDestroy(layout));
    require(cublasLtDestroy(handle));
    require(cudaFreeHost(pinned));
    require(cudaFreeAsync(p, stream));
    require(cudaEventDestroy(event));
    require(cudaStreamDestroy(stream));
    CHECK(fake_cuda::alive() == Told());
    CHECK(fake_cuda::failures() == Told());
}

namespace {
/// C[m, n] = A[m, k] B[k, n], column-major.
struct Product {
    std::uint64_t m, n, k;
    cublasLtHandle_t handle = nullptr;
    cublasLtMatmulDesc_t product = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
    cublasLtMatmulPreference_t wish = nullptr;
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;

    explicit Product(std::uint64_t m_, std::uint64_t n_, std::uint64_t k_, std::uint64_t k_of_b,
                     std::int64_t lda)
        : m(m_), n(n_), k(k_) {
        require(cublasLtCreate(&handle));
        require(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
        require(cublasLtMatrixLayoutCreate(&a, CUDA_R_32F, m, k, lda));
        require(cublasLtMatrixLayoutCreate(&b, CUDA_R_32F, k_of_b, n,
                                           static_cast<std::int64_t>(k_of_b)));
        require(cublasLtMatrixLayoutCreate(&c, CUDA_R_32F, m, n, static_cast<std::int64_t>(m)));
        require(cublasLtMatmulPreferenceCreate(&wish));
    }
    Product(const Product&) = delete;
    Product& operator=(const Product&) = delete;
    ~Product() {
        cublasLtMatmulPreferenceDestroy(wish);
        for (auto layout : {a, b, c}) cublasLtMatrixLayoutDestroy(layout);
        cublasLtMatmulDescDestroy(product);
        cublasLtDestroy(handle);
    }
    int choose(std::uint32_t alignment = 4) {
        for (const auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
            require(cublasLtMatmulPreferenceSetAttribute(wish, name, &alignment, 4));
        return cublasLtMatmulAlgoGetHeuristic(handle, product, a, b, c, c, wish, 1, &found, &count);
    }
    int run(const float* x, const float* y, float* z, cudaStream_t stream,
            const float* onto = nullptr) {
        const float one = 1, beta = onto ? 1 : 0;
        return cublasLtMatmul(handle, product, &one, x, a, y, b, &beta, onto ? onto : z, c, z, c,
                              &found.algo, z, 0, stream);
    }
};
}  // namespace

TEST_CASE("products that cannot be") {
    Streams s;
    float* y = make_floats(64, s.a);
    require(cudaMemsetAsync(y, 0, 256, s.a));
    {
        Product p(2, 3, 4, 4, 2);
        require(p.choose());
        require(p.run(s.x, y, y + 32, s.a));
        CHECK(p.run(s.x, y, y + 59, s.a) != 0);
        CHECK(told() == "cublasLtMatmul D: 24 bytes beyond the end of device memory");
        CHECK(p.run(s.x + 25, y, y + 32, s.a) != 0);
        CHECK(told() == "cublasLtMatmul A: 32 bytes beyond the end of device memory");
        require(p.run(s.x, y, y + 32, s.a, y + 38));
        CHECK(p.run(s.x, y, y + 32, s.a, y + 59) != 0);
        CHECK(told() == "cublasLtMatmul C: 24 bytes beyond the end of device memory");
        CHECK(p.run(s.x, y, y + 32, s.a, y + 35) != 0);
        CHECK(told() == "cublasLtMatmul: C and D overlap");
        require(p.choose(64));
        CHECK(p.run(s.x + 1, y, y + 32, s.a) != 0);
        CHECK_THAT(told(), Catch::Contains("alignment"));
        Product q(2, 3, 5, 5, 2);
        q.found = p.found;
        CHECK(q.run(s.x, y, y + 32, s.a) != 0);
        CHECK(told() == "cublasLtMatmul: the algorithm of another product");
        const std::uint64_t bytes = 1 << 20;
        require(cublasLtMatmulPreferenceSetAttribute(
            p.wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, 8));
        require(p.choose());
        CHECK(p.run(s.x, y, y + 32, s.a) != 0);
        CHECK_THAT(told(), Catch::Contains("workspace"));
        CHECK(cublasLtMatmulPreferenceSetAttribute(p.wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                   &bytes, 4) != 0);
        CHECK_THAT(told(), Catch::Contains("or its size"));
    }
    CHECK(Product(2, 3, 4, 5, 2).choose() != 0);
    CHECK(told() == "cublasLtMatmulAlgoGetHeuristic: the shapes do not fit");
    CHECK(Product(2, 3, 4, 4, 1).choose() != 0);
    CHECK_THAT(told(), Catch::Contains("leading dimension"));
    cublasLtMatrixLayout_t layout = nullptr;
    require(cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, 2, 2, 2));
    require(cublasLtMatrixLayoutDestroy(layout));
    CHECK(cublasLtMatrixLayoutDestroy(layout) != 0);
    CHECK(told() == "cublasLtMatrixLayoutDestroy: a cublasLtMatrixLayout that does not exist");
    require(cudaFreeAsync(y, s.a));
}

TEST_CASE("who leaves its arrays ends the process") {
    Streams s;
    const auto [kernel, by] = in_child([&] {
        detail::launch_kernel(1, 32, s.a, Increment{s.x, 32});
        cudaStreamSynchronize(s.a);
    });
    CHECK_THAT(kernel, Catch::Contains("a kernel touched"));
    CHECK(WIFSIGNALED(by));
    const auto [host, with] = in_child([&] { s.x[0] = 1; });
    CHECK_THAT(host, Catch::Contains("the host touched"));
    CHECK(WIFSIGNALED(with));
}

TEST_CASE("the process fails where nobody looked") {
    const auto [leak, leaky] = in_child([] { make_stream(); });
    CHECK_THAT(leak, Catch::Contains("never released: a stream"));
    CHECK(WEXITSTATUS(leaky) == 1);
    const auto [misuse, wrong] = in_child([] { cudaFreeHost(nullptr); });
    CHECK_THAT(misuse, Catch::Contains("cudaFreeHost: memory that was never allocated"));
    CHECK(WEXITSTATUS(wrong) == 1);
    CHECK(in_child([] {}).second == 0);
}
