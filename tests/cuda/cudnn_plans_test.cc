// cuDNN itself, on a machine without GPU: it is told what an A100, an H100 and a B200 are, and has
// to take the graphs of attention for them, down to compiled kernels, which the stand-in for the
// driver accepts (tests/cuda/fake/cuda_driver.c). Nothing is computed here.
#include <dlfcn.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdio>
#include <variant>

#include "eyas/device/cudnn_sdpa.cuh"
#include "fake_cuda.hpp"

using namespace eyas;

namespace {

/// What the data sheets and CUDA's table of compute capabilities say.
struct Gpu {
    const char* name;
    int sm, multiprocessors, shared_memory, l2_megabytes;
    std::int64_t memory;
};
const std::vector<Gpu> gpus{{"A100", 80, 108, 166912, 40, 80'000'000'000},
                            {"H100", 90, 132, 232448, 50, 80'000'000'000},
                            {"B200", 100, 148, 232448, 126, 180'000'000'000}};

std::shared_ptr<const cudnn_frontend::DeviceProperties> properties(const Gpu& g) {
    const auto number = [](const char* name, std::int64_t value) {
        return ",\"" + std::string(name) + "\":" + std::to_string(value);
    };
    const std::string text =
        "{\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64]" +
        number("regsPerBlock", 65536) + number("multiProcessorCount", g.multiprocessors) +
        number("warpSize", 32) + number("maxSharedMemoryPerBlock", 49152) +
        number("maxSharedMemoryPerBlockOptin", g.shared_memory) +
        number("reservedSharedMemoryPerBlock", 1024) + number("maxRegistersPerSM", 65536) +
        number("maxCtasPerSM", 32) + number("maxThreadsPerBlock", 1024) +
        number("maxThreadsPerSM", 2048) + number("pciDeviceId", 0) + number("isTccDriver", 0) +
        number("supportCoopLaunch", 1) + number("totalGlobalMem", g.memory) +
        number("smClockRateKHz", 1'900'000) + number("memClockRateKHz", 2'600'000) +
        number("l2CacheSize", std::int64_t{g.l2_megabytes} << 20) + number("cudaDeviceId", 0) +
        number("deviceVer", g.sm * 10) + number("driverVer", 13000) + ",\"deviceName\":\"" +
        g.name + "\"}";
    auto p = std::make_shared<cudnn_frontend::DeviceProperties>();
    const auto e = p->deserialize({text.begin(), text.end()});
    INFO(e.err_msg);
    REQUIRE(e.is_good());
    return p;
}

/// Rows of q, k and v side by side, as the draft has them.
SdpaShape shape(std::int64_t batch, std::int64_t tokens, std::int64_t heads, std::int64_t groups,
                std::int64_t width, bool backward) {
    const auto q = heads * width, row = (heads + 2 * groups) * width;
    SdpaShape s{batch, tokens, heads, groups, width, row, row, q, .125f, true};
    if (backward) s.d_out_stride = q, s.dq_stride = row;
    return s;
}

/// The workspace, or why not.
std::variant<std::size_t, std::string> planned(const Gpu& g, const SdpaShape& s,
                                               const CudnnSdpaOptions& options) {
    // What cudnn-frontend asks CUDA, besides what it is told.
    fake_cuda::compute_capability(g.sm / 10, g.sm % 10);
    std::string why;
    const detail::CudnnSdpaPlan plan(properties(g), g.sm, s, options, why);
    if (!why.empty()) return why;
    return plan.workspace_bytes();
}

/// The most workspace that a plan may want: a forward next to nothing; a backward sums of dq in
/// fp32, dk and dv of every query head in bfloat16, and what rows have besides; one that is the
/// same each time, before Blackwell, also the scores' gradients in bfloat16. In full tiles.
double allowed(const Gpu& g, const SdpaShape& s, bool deterministic) {
    if (!s.backward()) return 1024;
    const auto heads = static_cast<double>(s.batch * s.heads);
    const auto rows = static_cast<double>((s.tokens + 127) / 128 * 128);
    const double linear = heads * rows * static_cast<double>(12 * s.head_dim + 32) + 1e5;
    return linear + (deterministic && g.sm < 100 ? heads * rows * rows * 2 : 0);
}

/// cuDNN looks for it by its name.
void* driver() { return dlopen("tests/cuda/fake/libcuda.so.1", RTLD_NOW | RTLD_GLOBAL); }

}  // namespace

TEST_CASE("cuDNN plans attention, forward and backward, for A100, H100 and B200") {
    REQUIRE(driver());
    const bool deterministic = GENERATE(true, false);
    const bool backward = GENERATE(false, true);
    const CudnnSdpaOptions options{deterministic, std::size_t{1} << 40};
    const auto s =
        GENERATE_COPY(shape(1, 2048, 9, 3, 64, backward),    // SmolLM2-135M
                      shape(2, 4096, 32, 8, 128, backward),  // Llama-3.1-8B
                      shape(3, 65, 6, 1, 64, backward), shape(1, 37, 4, 4, 16, backward));
    for (const auto& g : gpus) {
        INFO(g.name << (backward ? " backward, " : " forward, ") << s.tokens << " tokens");
        const auto begin = std::chrono::steady_clock::now();
        const auto p = planned(g, s, options);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        if (const auto* why = std::get_if<std::string>(&p)) FAIL(*why);
        const auto bytes = static_cast<double>(std::get<std::size_t>(p));
        CHECK(bytes <= allowed(g, s, deterministic));
        std::printf(
            "cuDNN for %s: %s, %ld x %ld tokens, %ld heads of %ld%s: workspace %.1f MB, planned in "
            "%.2f s\n",
            g.name, backward ? "backward" : "forward", s.batch, s.tokens, s.heads, s.head_dim,
            deterministic ? ", deterministic" : "", bytes / 1e6, took.count());
    }
}

TEST_CASE("heads of 256: forward everywhere, backward on Hopper") {
    REQUIRE(driver());
    const auto taken = [](const Gpu& g, bool backward) {
        return std::holds_alternative<std::size_t>(
            planned(g, shape(1, 130, 8, 8, 256, backward), {}));
    };
    for (const auto& g : gpus) {
        CHECK(taken(g, false));
        CHECK(taken(g, true) == (g.sm == 90));
    }
}

TEST_CASE("what cuDNN does not take is refused with its words, and so is too much workspace") {
    REQUIRE(driver());
    const auto refused = [](const Gpu& g, const SdpaShape& s, const char* words) {
        const auto p = planned(g, s, {});
        REQUIRE(std::holds_alternative<std::string>(p));
        CHECK_THAT(std::get<std::string>(p), Catch::Contains(words));
    };
    refused(gpus[1], shape(1, 64, 2, 2, 12, false), "multiple of 8");
    refused(gpus[0], shape(1, 64, 2, 2, 256, true), "less than or equal to 128");
    refused(gpus[1], shape(1, 1, 2, 2, 64, true), "s_q = s_kv = 1");
    refused(gpus[1], shape(2, 4096, 32, 8, 128, true), "bytes of workspace, more than 1073741824");
}
