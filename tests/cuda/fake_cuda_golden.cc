// fake_cuda_golden DIR...: golden_parity through the device Cuda, on a CUDA runtime of the host.
#include <cstdio>

#include "compare_trace.hpp"
#include "eyas/device/cuda.cuh"
#include "eyas/ops/block/all.hpp"

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr,
                     "usage: fake_cuda_golden DIR...   (directories with trace_*.json and "
                     ".safetensors)\n");
        return 2;
    }
    return eyas::golden::compare_traces<eyas::Cuda>({argv + 1, argv + argc});
}
