// The kernels of a GPU, run block by block on the host, beside Cpu's ops: in both orders of
// threads, so that a phase in which threads depend on each other is found.
#include "eyas/device/host_blocks.hpp"

#include <catch2/catch.hpp>

#include "eyas/ops/block/all.hpp"
#include "op_parity.hpp"

using namespace eyas;

TEMPLATE_TEST_CASE("kernels give what the host's ops give", "", float, BFloat16) {
    for (const bool backwards : {false, true}) {
        golden::Report report;
        test::compare_ops<TestType>(HostBlocks(backwards), report);
        CHECK(report.failed() == 0);
        CHECK(report.passed() == 16);
    }
}

TEMPLATE_TEST_CASE("the order of threads changes no bit", "", float, BFloat16) {
    const HostBlocks forwards, backwards(true);
    const auto same = [&](auto f) { CHECK(f(forwards) == f(backwards)); };
    same([](const auto& d) { return test::rms_norm_case<TestType>(d); });
    same([](const auto& d) { return test::swiglu_case<TestType>(d); });
    same([](const auto& d) { return test::rows_case<TestType>(d); });
    same([](const auto& d) { return test::rotary_case<TestType>(d); });
    same([](const auto& d) { return test::attention_case<TestType>(d, 150, 4); });
    same([](const auto& d) { return test::attention_case<TestType>(d, 150, 4, 16, true); });
    same([](const auto& d) { return test::heads_case<TestType>(d, 2); });
    same([](const auto& d) { return test::adamw_case<TestType>(d); });
}
