// golden_parity DIR...: runs every reference trace (trace_*.json) in the given directories through
// eyas and compares losses, metrics, gradients and 20-step trajectories.
#include <cstdio>

#include "compare_trace.hpp"
#include "eyas/device/cpu.hpp"

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(
            stderr,
            "usage: golden_parity DIR...   (directories with trace_*.json and .safetensors)\n");
        return 2;
    }
    return eyas::golden::compare_traces<eyas::Cpu>({argv + 1, argv + argc});
}
