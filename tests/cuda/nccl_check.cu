// nccl_check [--may-skip]: Collective<Nccl> in one process for each GPU of this machine (up to 8):
// what every group must do, in the host's memory and in the GPUs'. Exit status 1 where something is
// wrong or there are fewer than two GPUs; with --may-skip 0 where there are.
#include <cuda_runtime_api.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "eyas/collective/collective.hpp"
#include "eyas/collective/nccl.cuh"
#include "tests/collective/conformance.hpp"
#include "tests/collective/free_port.hpp"

namespace {

int rank() {
    const auto r = eyas::rendezvous_from_environment();
    const eyas::Cuda gpu(r.rank);
    eyas::Collective<eyas::Nccl> group(r, gpu);
    constexpr std::size_t large = 3'000'017;
    eyas::conformance::check_shards(group, large);
    eyas::conformance::check_wrong_shards(group);
    for (const std::size_t n : {std::size_t{1}, std::size_t{4096}, large}) {
        eyas::conformance::check_order_of_sums<float>(group, n);
        eyas::conformance::check_order_of_sums<double>(group, n);
        eyas::conformance::check_broadcast(group, n);
    }
    eyas::conformance::check_device_shards(group, gpu, large);
    group.barrier();
    std::printf("rank %d of %d: passed\n", r.rank, r.world);
    return 0;
}

/// This program again, as a rank; the environment says which.
pid_t start(int number, char** argv) {
    ::setenv("RANK", std::to_string(number).c_str(), 1);
    pid_t pid = -1;
    if (::posix_spawn(&pid, "/proc/self/exe", nullptr, nullptr, argv, environ) != 0) return -1;
    return pid;
}

int all(int world, char** argv) {
    ::setenv("WORLD_SIZE", std::to_string(world).c_str(), 1);
    ::setenv("MASTER_ADDR", "127.0.0.1", 1);
    ::setenv("MASTER_PORT", std::to_string(eyas::test::free_port()).c_str(), 1);
    std::vector<pid_t> ranks;
    for (int r = 0; r < world; ++r) ranks.push_back(start(r, argv));
    int failed = 0;
    for (const auto pid : ranks) {
        int status = 1;
        if (pid < 0 || ::waitpid(pid, &status, 0) != pid || status != 0) ++failed;
    }
    std::printf("%d ranks, %d failed\n", world, failed);
    return failed ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
    const bool may_skip = argc > 1 && std::string(argv[1]) == "--may-skip";
    try {
        if (std::getenv("RANK")) return rank();
        int gpus = 0;
        const auto status = cudaGetDeviceCount(&gpus);
        if (status == cudaSuccess && gpus >= 2) return all(std::min(gpus, 8), argv);
        std::printf("SKIPPED: nothing was run. Two GPUs are needed, there are %d (%s)\n",
                    status == cudaSuccess ? gpus : 0, cudaGetErrorString(status));
        return may_skip ? 0 : 1;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "nccl_check: %s\n", e.what());
        return 1;
    }
}
