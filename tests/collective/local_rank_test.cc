#include "eyas/collective/local_rank.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <string>

using namespace eyas;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

namespace {
using Variables = std::map<std::string, std::string>;

int gpu_of(const Variables& variables, int rank, int gpus, int world = 16) {
    Rendezvous r;
    r.rank = rank, r.world = world;
    return gpu_of_rank(
        [&](const char* name) -> const char* {
            const auto found = variables.find(name);
            return found == variables.end() ? nullptr : found->second.c_str();
        },
        r, gpus);
}
}  // namespace

TEST_CASE("each launcher's local rank numbers the GPU") {
    const Variables torchrun{{"RANK", "11"}, {"LOCAL_RANK", "3"}, {"LOCAL_WORLD_SIZE", "8"}};
    CHECK(gpu_of(torchrun, 11, 8) == 3);
    const Variables mpirun{{"OMPI_COMM_WORLD_RANK", "11"},
                           {"OMPI_COMM_WORLD_LOCAL_RANK", "2"},
                           {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"}};
    CHECK(gpu_of(mpirun, 11, 4) == 2);
    CHECK(gpu_of({{"SLURM_PROCID", "11"}, {"SLURM_LOCALID", "1"}}, 11, 4) == 1);
    // By hand: what Slurm or mpirun says is of the script that started the processes.
    CHECK(gpu_of({{"RANK", "1"}, {"SLURM_LOCALID", "0"}}, 1, 4) == 1);
    CHECK(gpu_of({{"RANK", "1"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "0"}}, 1, 4) == 1);
    CHECK(gpu_of({{"RANK", "0"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "8"}}, 0, 4) == 0);
}

TEST_CASE("of GPUs that the launcher has chosen it is the one") {
    for (const char* shown : {"5", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"})
        CHECK(gpu_of({{"RANK", "3"}, {"LOCAL_RANK", "3"}, {"CUDA_VISIBLE_DEVICES", shown}}, 3, 1) ==
              0);
    CHECK(gpu_of({{"RANK", "1"}, {"LOCAL_RANK", "1"}, {"CUDA_VISIBLE_DEVICES", "4,6"}}, 1, 2) == 1);
    // Of a list with one that is there, it was not chosen for this process.
    CHECK_THROWS_AS(
        gpu_of({{"RANK", "1"}, {"LOCAL_RANK", "1"}, {"CUDA_VISIBLE_DEVICES", "0,9"}}, 1, 1),
        ResourceError);
}

TEST_CASE("fewer GPUs than processes of a machine is an error on each of them") {
    const Variables zero{{"RANK", "8"}, {"LOCAL_RANK", "0"}, {"LOCAL_WORLD_SIZE", "3"}};
    CHECK(gpu_of(zero, 8, 3) == 0);
    CHECK_THROWS_WITH(gpu_of(zero, 8, 2), StartsWith("LOCAL_RANK: this process sees 2 GPUs, and at "
                                                     "least 3 processes"));
    CHECK_THROWS_AS(gpu_of(zero, 8, 1), ResourceError);
    CHECK_THROWS_WITH(gpu_of({{"RANK", "9"}}, 9, 8),
                      StartsWith("RANK: this process sees 8 GPUs, and at least 10") &&
                          Contains("tell each its LOCAL_RANK"));
    CHECK(gpu_of(zero, 8, 0) == 0);  // making the device tells
}

TEST_CASE("local ranks that make no sense are refused by name") {
    for (const char* bad : {"-1", "16", "2x", "1.0", " 1", "99999999999"})
        CHECK_THROWS_WITH(gpu_of({{"RANK", "3"}, {"LOCAL_RANK", bad}}, 3, 16),
                          StartsWith("LOCAL_RANK: is '"));
    for (const char* bad : {"0", "17", "x"})
        CHECK_THROWS_WITH(
            gpu_of({{"RANK", "3"}, {"LOCAL_RANK", "0"}, {"LOCAL_WORLD_SIZE", bad}}, 3, 16),
            StartsWith("LOCAL_WORLD_SIZE: is '"));
}
