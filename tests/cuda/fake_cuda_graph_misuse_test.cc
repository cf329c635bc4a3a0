// The CUDA runtime of the host is tested itself: what it tells of captures and graphs.
#include <array>
#include <catch2/catch.hpp>
#include <thread>
#include <utility>

#include "eyas/device/cuda_launch.cuh"
#include "fake_cuda.hpp"
#include "misuse_streams.hpp"

using namespace eyas;
using namespace eyas::test::misuse;
using Told = std::vector<std::string>;

namespace {
/// What begins, ends and destroys captures of a stream.
struct Capture {
    cudaStream_t stream;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;

    explicit Capture(cudaStream_t s) : stream(s) {
        require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    }
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
    ~Capture() {
        if (exec) cudaGraphExecDestroy(exec);
        if (graph) cudaGraphDestroy(graph);
    }
    int end() { return cudaStreamEndCapture(stream, &graph); }
    void make() {
        require(end());
        require(cudaGraphInstantiate(&exec, graph, 0));
    }
};
}  // namespace

TEST_CASE("what no capture holds") {
    Streams s;
    const auto event = make_event();
    require(cudaEventRecord(event, s.b));
    /// What is told of a call in a capture, which is spoilt where it is the stream's.
    const auto tells = [&](bool spoils, auto call) {
        Capture c(s.a);
        CHECK(call() != cudaSuccess);
        const auto what = told();
        CHECK(c.end() == (spoils ? cudaErrorStreamCaptureInvalidated : cudaSuccess));
        CHECK((c.graph == nullptr) == spoils);
        return what;
    };
    const std::string of_stream = ": of a stream that captures", of_thread = ": by who captures";
    CHECK(tells(true, [&] { return cudaStreamSynchronize(s.a); }) ==
          "cudaStreamSynchronize" + of_stream);
    CHECK(tells(true, [&] { return cudaStreamQuery(s.a); }) == "cudaStreamQuery" + of_stream);
    CHECK(tells(true, [&] { return copy(s.x, s.host.data(), 4, up, s.a); }) ==
          "cudaMemcpyAsync with the host" + of_stream);
    CHECK(tells(true, [&] { return copy(s.host.data(), s.x, 4, down, s.a); }) ==
          "cudaMemcpyAsync with the host" + of_stream);
    CHECK(tells(true, [&] { return cudaEventRecord(event, s.a); }) ==
          "cudaEventRecord" + of_stream);
    CHECK(tells(true, [&] { return cudaStreamWaitEvent(s.a, event, 0); }) ==
          "cudaStreamWaitEvent" + of_stream);
    CHECK(tells(true, [&] {
              return cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal);
          }) == "cudaStreamBeginCapture" + of_stream);
    CHECK(tells(true, [&] { return cudaFreeAsync(s.x, s.a); }) ==
          "cudaFreeAsync: memory that was not allocated in the capture");
    CHECK(tells(false, [&] { return cudaEventSynchronize(event); }) ==
          "cudaEventSynchronize" + of_thread);
    CHECK(tells(false, [&] { return cudaEventQuery(event); }) == "cudaEventQuery" + of_thread);
    void* p = nullptr;
    CHECK(tells(false, [&] { return cudaMalloc(&p, 4); }) == "cudaMalloc" + of_thread);
    CHECK(tells(false, [&] { return cudaHostAlloc(&p, 4, 0); }) == "cudaHostAlloc" + of_thread);
    {
        Capture c(s.a);  // another stream works meanwhile, and another thread waits
        require(cudaMemsetAsync(s.x, 0, 4, s.b));
        std::thread([&] { CHECK(cudaEventSynchronize(event) == cudaSuccess); }).join();
        CHECK(fake_cuda::alive() != Told());
        c.make();
    }
    require(cudaStreamSynchronize(s.b));
    require(cudaEventDestroy(event));
}

TEST_CASE("graphs and their parts that are not there") {
    Streams s;
    cudaGraph_t graph = nullptr;
    CHECK(cudaStreamEndCapture(s.a, &graph) != cudaSuccess);
    CHECK(told() == "cudaStreamEndCapture: a capture that never began");
    cudaGraphExec_t exec = nullptr;
    {
        Capture c(s.a);
        detail::launch_kernel(1, 32, s.a, Increment{s.x});
        c.make();
        auto alive = fake_cuda::alive();
        CHECK(std::ranges::count(alive, "a cudaGraph") == 1);
        CHECK(std::ranges::count(alive, "a cudaGraphExec") == 1);
        require(cudaStreamSynchronize(s.a));
        for (int i = 0; i < 3; ++i) require(cudaGraphLaunch(c.exec, s.a));
        exec = c.exec, graph = c.graph;
    }  // while its work is queued
    require(copy(s.host.data(), s.x, 32, down, s.a));
    require(cudaStreamSynchronize(s.a));
    CHECK(s.host[0] == 3);  // what was captured was not done besides
    CHECK(cudaGraphLaunch(exec, s.a) != cudaSuccess);
    CHECK(told() == "cudaGraphLaunch: a cudaGraphExec that does not exist");
    CHECK(cudaGraphExecDestroy(exec) != cudaSuccess);
    CHECK(told() == "cudaGraphExecDestroy: a cudaGraphExec that does not exist");
    CHECK(cudaGraphDestroy(graph) != cudaSuccess);
    CHECK(told() == "cudaGraphDestroy: a cudaGraph that does not exist");
    CHECK(cudaGraphInstantiate(&exec, graph, 0) != cudaSuccess);
    CHECK(told() == "cudaGraphInstantiate: a cudaGraph that does not exist");
    {
        Capture c(s.a);
        std::thread([&] { CHECK(c.end() == cudaErrorStreamCaptureWrongThread); }).join();
        CHECK(told() == "cudaStreamEndCapture: another thread began the capture");
        require(c.end());
    }
    fake_cuda::devices(2);
    require(cudaSetDevice(1));
    cudaStream_t other = nullptr;
    require(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    require(cudaSetDevice(0));
    {
        Capture c(s.a);
        c.make();
        CHECK(cudaGraphLaunch(c.exec, other) != cudaSuccess);
        CHECK(told() == "cudaGraphLaunch: a stream of another GPU than the captured one's");
    }
    require(cudaStreamDestroy(other));
    fake_cuda::devices(1);
}

TEST_CASE("memory of a graph") {
    Streams s;
    {
        Capture c(s.a);
        float* p = make_floats(4, s.a);
        require(c.end());
        CHECK(cudaGraphInstantiate(&c.exec, c.graph, 0) != cudaSuccess);
        CHECK(told() == "cudaGraphInstantiate: 16 bytes that the graph does not release");
        CHECK(cudaFreeAsync(p, s.a) != cudaSuccess);
        CHECK(told() == "cudaFreeAsync: memory of a graph");
    }
    {
        Capture c(s.a);
        float* p = make_floats(32, s.a);
        require(cudaMemsetAsync(p, 0, 128, s.a));
        require(copy(s.x, p, 32, across, s.a));
        require(cudaFreeAsync(p, s.a));
        CHECK(cudaFreeAsync(p, s.a) != cudaSuccess);
        CHECK(told() == "cudaFreeAsync: memory that was released");
        CHECK(cudaMemsetAsync(p, 0, 4, s.a) != cudaSuccess);
        CHECK(told() == "cudaMemsetAsync: 4 bytes of memory that was released");
        c.make();
        for (int i = 0; i < 2; ++i) require(cudaGraphLaunch(c.exec, s.a));
        require(cudaStreamSynchronize(s.a));
        const auto [kernel, by] = in_child([&] {
            detail::launch_kernel(1, 32, s.a, Increment{p});
            cudaStreamSynchronize(s.a);
        });
        CHECK_THAT(kernel, Catch::Contains("a kernel touched"));
        CHECK(WIFSIGNALED(by));
        std::uint64_t most = 0;
        require(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrUsedMemHigh, &most));
        CHECK(most == 128);
        CHECK(cudaDeviceGetGraphMemAttribute(7, cudaGraphMemAttrUsedMemHigh, &most) != cudaSuccess);
        CHECK_THAT(told(), Catch::Contains("no such GPU"));
        CHECK(cudaDeviceGraphMemTrim(7) != cudaSuccess);
        CHECK_THAT(told(), Catch::Contains("no such GPU"));
    }
    {
        Capture c(s.a);
        float* p = make_floats(32, s.a);
        require(cudaFreeAsync(p, s.a));
        c.make();
        require(cudaGraphLaunch(c.exec, s.a));
        require(cudaGraphExecDestroy(std::exchange(c.exec, nullptr)));
        CHECK(told() == "cudaGraphExecDestroy: its memory is in use");
        require(cudaGraphDestroy(std::exchange(c.graph, nullptr)));
        CHECK(told() == "cudaGraphDestroy: its memory is in use");
        require(cudaStreamSynchronize(s.a));
    }
}
