// Collective<Nccl> over a CUDA and a NCCL of the host (tests/cuda/fake): what every group must do,
// in the host's memory and in the GPU's.
#include <catch2/catch.hpp>

#include "tests/collective/conformance.hpp"
#include "tests/cuda/nccl_ranks.hpp"

using namespace eyas;
using test::NcclMember;
using test::NcclRanks;
using Told = std::vector<std::string>;

namespace {
void check_all(int world) {
    const NcclRanks ranks(world);
    const auto errors = ranks.run([](int, NcclMember& group, const Cuda& gpu) {
        conformance::check_shards(group, 10'000);
        conformance::check_wrong_shards(group);
        for (const auto n : std::vector<std::size_t>{1, 5, 4096, 20'011}) {
            conformance::check_order_of_sums<float>(group, n);
            conformance::check_order_of_sums<double>(group, n);
            conformance::check_broadcast(group, n);
        }
        conformance::check_device_shards(group, gpu, 10'000);
        group.barrier();
    });
    for (const auto& e : errors) CHECK(test::text_of(e) == "");
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}
}  // namespace

TEST_CASE("shards, sums and their order, on the host and on the GPU") {
    for (const int world : {1, 2, 3, 4}) check_all(world);
}

TEST_CASE("the same where a GPU does its work at once, and backwards") {
    fake_cuda::eager(true);
    check_all(2);
    fake_cuda::eager(false), fake_cuda::backwards(true);
    check_all(3);
    fake_cuda::backwards(false);
}

TEST_CASE("calls on the GPU wait for what the device does before, and for no more") {
    const NcclRanks ranks(2);
    std::vector<std::vector<float>> later(2);
    const auto errors = ranks.run([&](int rank, NcclMember& group, const Cuda& gpu) {
        constexpr std::int64_t n = 6000;
        Tensor sum(DType::F32, Shape{n}, gpu.memory()), other(DType::F32, Shape{n}, gpu.memory());
        float *x = sum.as<float>().data(), *y = other.as<float>().data();
        // Nothing of this is done before somebody waits for it.
        gpu.for_each(n, [=](std::int64_t i) { x[i] = static_cast<float>(i + rank); });
        const auto filled = mark_of(gpu);
        gpu.for_each(n, [=](std::int64_t i) { y[i] = 1.f; });
        const std::vector<std::size_t> counts(2, n / 2);
        std::thread([&] { group.reduce_scatter(sum.as<float>(), counts, filled); }).join();
        // The device goes on with what came of it.
        gpu.for_each(n, [=](std::int64_t i) { y[i] += x[i]; });
        later[static_cast<std::size_t>(rank)].resize(n);
        download(gpu, y, std::span(later[static_cast<std::size_t>(rank)]));
        group.barrier();
    });
    for (const auto& e : errors) CHECK(test::text_of(e) == "");
    for (std::size_t r = 0; r < 2; ++r)
        for (std::size_t i = r * 3000; i < r * 3000 + 3000; ++i)
            CHECK(later[r][i] == static_cast<float>(2 * i + 2));
    CHECK(fake_cuda::failures() == Told());
}

TEST_CASE("a group reaches the memory of its own GPU alone, and the host's") {
    fake_cuda::devices(2);
    const Cuda gpu(0), another(1);
    const NcclMember alone(Rendezvous{}, gpu);
    CHECK(alone.reaches(gpu));
    CHECK(alone.reaches(Cpu()));
    CHECK_FALSE(alone.reaches(another));
    CHECK_THROWS_AS(NcclMember(Rendezvous{-1, 2, "127.0.0.1", 29500, std::chrono::seconds(1)}, gpu),
                    ContractError);
}
