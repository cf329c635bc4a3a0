// host_blocks_golden DIR...: golden_parity through the kernels of a GPU, which HostBlocks runs
// block by block on the host; its memory is closed to the host's own loops.
#include <cstdio>

#include "compare_trace.hpp"
#include "eyas/device/host_blocks.hpp"
#include "eyas/ops/block/all.hpp"

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr,
                     "usage: host_blocks_golden DIR...   (directories with trace_*.json and "
                     ".safetensors)\n");
        return 2;
    }
    return eyas::golden::compare_traces<eyas::HostBlocks>({argv + 1, argv + argc});
}
