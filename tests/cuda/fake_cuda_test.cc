// The device Cuda on a CUDA runtime of the host (tests/cuda/fake): every op beside Cpu's.
#include <catch2/catch.hpp>

#include "eyas/device/cuda.cuh"
#include "eyas/ops/block/all.hpp"
#include "fake_cuda.hpp"
#include "op_parity.hpp"

using namespace eyas;
using Told = std::vector<std::string>;

TEMPLATE_TEST_CASE("Cuda gives what the host's ops give", "", float, BFloat16) {
    for (const bool eager : {false, true})
        for (const bool products : {false, true}) {
            fake_cuda::eager(eager), fake_cuda::no_algorithms(!products);
            golden::Report report;
            test::compare_ops<TestType>(Cuda(), report);
            CHECK(report.failed() == 0);
            CHECK(report.passed() == 16);
            CHECK(fake_cuda::failures() == Told());
        }
    CHECK(fake_cuda::alive() == Told());
    fake_cuda::eager(false), fake_cuda::no_algorithms(false);
}
