#pragma once
#include <cuda_runtime_api.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "eyas/device/block.hpp"
#include "fake_cuda.hpp"

// Calls of the CUDA runtime of the host, for tests of what it tells.
namespace eyas::test::misuse {

inline void require(int status) { REQUIRE(status == 0); }

/// What was told since the last time, of which there is one.
inline std::string told() {
    const auto all = fake_cuda::failures();
    [[maybe_unused]] const auto taken = cudaGetLastError();  // a launch would tell of it
    INFO(Catch::StringMaker<std::vector<std::string>>::convert(all));
    CHECK(all.size() == 1);
    return all.empty() ? "" : all.front();
}

inline cudaStream_t make_stream() {
    require(cudaSetDevice(0));
    cudaStream_t stream = nullptr;
    require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}
inline cudaEvent_t make_event() {
    cudaEvent_t event = nullptr;
    require(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
}
inline float* make_floats(std::size_t n, cudaStream_t stream) {
    void* p = nullptr;
    require(cudaMallocAsync(&p, n * sizeof(float), stream));
    return static_cast<float*>(p);
}
inline float* make_pinned(std::size_t n) {
    void* p = nullptr;
    require(cudaHostAlloc(&p, n * sizeof(float), cudaHostAllocDefault));
    return static_cast<float*>(p);
}
inline int copy(void* to, const void* from, std::size_t floats, cudaMemcpyKind kind,
                cudaStream_t s) {
    return cudaMemcpyAsync(to, from, floats * sizeof(float), kind, s);
}
inline constexpr auto up = cudaMemcpyHostToDevice, down = cudaMemcpyDeviceToHost,
                      across = cudaMemcpyDeviceToDevice;

/// x[i] += 1 for i in [first, first + 32).
struct Increment {
    using Shared = NoShared;
    static constexpr int most_threads = 64;
    float* x;
    std::int64_t first = 0;
    template <class B>
    void operator()(B& block, Shared&) const {
        block.each([&](int t) {
            if (t < 32) x[first + t] += 1;
        });
    }
};

/// Two streams, and 32 numbers that the first one made.
struct Streams {
    cudaStream_t a = make_stream(), b = make_stream();
    float* x = make_floats(32, a);
    std::array<float, 32> host{};

    Streams() {
        std::memset(host.data(), 0, sizeof host);
        require(copy(x, host.data(), 32, up, a));
        require(cudaStreamSynchronize(a));
    }
    ~Streams() {
        cudaStreamSynchronize(a);
        cudaFreeAsync(x, a);
        cudaStreamDestroy(a);
        cudaStreamDestroy(b);
        CHECK(fake_cuda::failures() == std::vector<std::string>());
        CHECK(fake_cuda::alive() == std::vector<std::string>());
    }
};

/// What a process that does this says; its wait status.
template <class F>
std::pair<std::string, int> in_child(F f) {
    int ends[2];
    require(::pipe(ends));
    const auto child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ::dup2(ends[1], 1), ::dup2(ends[1], 2);
        ::close(ends[0]), ::close(ends[1]);
        f();
        std::exit(0);
    }
    ::close(ends[1]);
    std::string said;
    char text[256];
    for (ssize_t n = 0; (n = ::read(ends[0], text, sizeof text)) > 0;)
        said.append(text, static_cast<std::size_t>(n));
    ::close(ends[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    return {said, status};
}

}  // namespace eyas::test::misuse
