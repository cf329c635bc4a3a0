// fake_cuda_golden [--sdpa] DIR...: golden parity of the device Cuda on a CUDA runtime of the host
// (tests/cuda/fake). --sdpa: the bfloat16 traces with attention by a library, which must have taken
// every call.
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "compare_trace.hpp"
#include "eyas/device/cuda.cuh"
#include "eyas/ops/block/all.hpp"
#include "reference_sdpa.hpp"

int main(int argc, char** argv) {
    using namespace eyas;
    const bool sdpa = argc > 1 && !std::strcmp(argv[1], "--sdpa");
    if (argc < (sdpa ? 3 : 2)) {
        std::fprintf(stderr,
                     "usage: fake_cuda_golden [--sdpa] DIR...   (directories with trace_*.json and "
                     ".safetensors)\n");
        return 2;
    }
    if (!sdpa) return golden::compare_traces<Cuda>({argv + 1, argv + argc});
    const Cuda cuda;  // its context is the one of every model
    cuda.attend_by(std::make_shared<fake_cuda::ReferenceSdpa>());
    const int status = golden::compare_traces<Cuda>({argv + 2, argv + argc});
    std::printf("attention: %s\n", cuda.attention_use().text().c_str());
    return status ? status : cuda.attention_use().taken == 0;
}
