// fake_cuda_golden [--sdpa | --graphs] DIR...: golden parity of the device Cuda on a CUDA runtime
// of the host (tests/cuda/fake). --sdpa: the bfloat16 traces with attention by a library, which
// must have taken every call. --graphs: steps are recorded and replayed.
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "compare_trace.hpp"
#include "eyas/device/cuda.cuh"
#include "eyas/ops/block/all.hpp"
#include "fake_cuda.hpp"
#include "reference_sdpa.hpp"

int main(int argc, char** argv) {
    using namespace eyas;
    const auto asked = [&](const char* for_what) {
        return argc > 1 && !std::strcmp(argv[1], for_what);
    };
    const bool sdpa = asked("--sdpa"), graphs = asked("--graphs");
    if (argc < (sdpa || graphs ? 3 : 2)) {
        std::fprintf(stderr,
                     "usage: fake_cuda_golden [--sdpa | --graphs] DIR...   (directories with "
                     "trace_*.json and .safetensors)\n");
        return 2;
    }
    if (graphs) {
        golden::Trace::replay_steps = true;
        const int status = golden::compare_traces<Cuda>({argv + 2, argv + argc});
        const int launches = fake_cuda::calls("cudaGraphLaunch");
        std::printf("graphs: %d launches\n", launches);
        return status ? status : launches == 0;
    }
    if (!sdpa) return golden::compare_traces<Cuda>({argv + 1, argv + argc});
    const Cuda cuda;  // its context is the one of every model
    cuda.attend_by(std::make_shared<fake_cuda::ReferenceSdpa>());
    const int status = golden::compare_traces<Cuda>({argv + 2, argv + argc});
    std::printf("attention: %s\n", cuda.attention_use().text().c_str());
    return status ? status : cuda.attention_use().taken == 0;
}
