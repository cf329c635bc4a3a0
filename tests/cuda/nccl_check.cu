// nccl_check [--may-skip]: Collective<Nccl> in one process for each GPU of this machine (up to 8):
// what every group must do, in the host's memory and in the GPUs', and a training in which all
// ranks end with the same bits, twice. Exit status 1 where something is wrong or there are fewer
// than two GPUs; with --may-skip 0 where there are.
#include <cuda_runtime_api.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "eyas/collective/nccl.cuh"
#include "eyas/eyas.hpp"
#include "eyas/ops/block/all.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/collective/conformance.hpp"
#include "tests/collective/free_port.hpp"
#include "tests/pipeline/tiny_draft.hpp"

namespace {

using Group = eyas::Collective<eyas::Nccl>;
constexpr const char* directory = "EYAS_NCCL_CHECK";  // the variable

std::filesystem::path file_of(int rank) {
    return std::filesystem::path(std::getenv(directory)) / ("weights-" + std::to_string(rank));
}

void check_calls(const eyas::Rendezvous& r, const eyas::Cuda& gpu) {
    Group group(r, gpu);
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
}

/// Checksums of the weights that a short training ends with.
template <class P>
std::string train(const eyas::Rendezvous& r, const eyas::Cuda& gpu) {
    using namespace eyas;
    const auto features = std::filesystem::path(std::getenv(directory)) / "features";
    Store<LocalFiles> store(local_files_options(parse_store_uri("file:" + features.string())));
    test::TinyDraft<P, Cuda> draft(1, Activations::Keep, gpu);
    PipelineOptions o;
    o.trainer.schedule.base_rate = 1e-2;
    o.trainer.epochs = 2;
    o.trainer.bucket_bytes = 1024;  // several
    Pipeline<Store<LocalFiles>, Trainer<Eagle3<Cuda, P>, Group>> pipeline(
        store, scan_features(features), *draft.model, o, Group(r, gpu));
    pipeline.run();
    std::string sums;
    for (const auto& p : draft.model->parameters())
        sums += p.name + " " + hex64(xxh3(on_host(gpu, p.value).view().bytes())) + "\n";
    return sums;
}

int rank() {
    const auto r = eyas::rendezvous_from_environment();
    const eyas::Cuda gpu(r.rank);
    check_calls(r, gpu);
    const auto weights = train<eyas::F32>(r, gpu) + train<eyas::Bf16>(r, gpu);
    if (train<eyas::F32>(r, gpu) + train<eyas::Bf16>(r, gpu) != weights)
        throw std::runtime_error("a training ends with other bits the second time");
    eyas::write_text_file(file_of(r.rank), weights);
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
    const eyas::test::RunDirectory work("nccl-check");
    ::setenv(directory, work.path().c_str(), 1);
    eyas::test::write_features(work.path() / "features", 4 * world, eyas::DType::F32);
    std::vector<pid_t> ranks;
    for (int r = 0; r < world; ++r) ranks.push_back(start(r, argv));
    int failed = 0;
    for (const auto pid : ranks) {
        int status = 1;
        if (pid < 0 || ::waitpid(pid, &status, 0) != pid || status != 0) ++failed;
    }
    for (int r = 1; failed == 0 && r < world; ++r)
        if (eyas::read_text_file(file_of(r)) != eyas::read_text_file(file_of(0))) {
            std::printf("ranks 0 and %d end with different weights\n", r);
            ++failed;
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
