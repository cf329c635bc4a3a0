// fake_cudnn_golden DIR...: golden parity of the device Cuda with attention by cuDNN, on the CUDA
// runtime and the cuDNN of the host (tests/cuda/fake). cuDNN must have taken calls.
#include <cstdio>
#include <memory>

#include "compare_trace.hpp"
#include "eyas/device/cuda.cuh"
#include "eyas/device/cudnn_sdpa.cuh"
#include "eyas/ops/block/all.hpp"

int main(int argc, char** argv) {
    using namespace eyas;
    if (argc < 2) {
        std::fprintf(stderr, "usage: fake_cudnn_golden DIR...\n");
        return 2;
    }
    const Cuda cuda;  // its context is the one of every model
    cuda.attend_by(std::make_shared<CudnnSdpa>(cuda.ordinal()));
    const int status = golden::compare_traces<Cuda>({argv + 1, argv + argc});
    std::printf("attention: %s\n", cuda.attention_use().text().c_str());
    return status ? status : cuda.attention_use().taken == 0;
}
