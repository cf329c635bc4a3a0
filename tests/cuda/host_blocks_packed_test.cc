// A step of packed rows through the kernels of a GPU, beside Cpu's.
#include <catch2/catch.hpp>
#include <concepts>

#include "eyas/device/host_blocks.hpp"
#include "eyas/ops/block/all.hpp"
#include "tests/model/packed_batch.hpp"

using namespace eyas;
using namespace eyas::test::packed;

TEMPLATE_TEST_CASE("packed documents on a device with its own memory", "", F32, Bf16) {
    const Documents d;
    const Owned packed(d.packed, 2 * d.longest, true), mixed(d.packed, 2 * d.longest, false);
    for (const auto loss : {LossType::CrossEntropy, LossType::LkAlpha, LossType::LkLambda})
        for (const auto activations : {Activations::Keep, Activations::Recompute}) {
            INFO("loss " << static_cast<int>(loss));
            Draft<TestType> cpu(loss, 4, activations);
            Draft<F32> exact(loss, 4, activations);
            Draft<TestType, HostBlocks> blocks(loss, 4, activations);
            const auto want = run(cpu, {{&packed.batch}});
            const auto in_f32 = run(exact, {{&packed.batch}});
            const auto got = run(blocks, {{&packed.batch}});
            require_near(want, got, std::same_as<TestType, F32> ? nullptr : &in_f32);
            const auto other = run(blocks, {{&mixed.batch}});  // the same numbers in one document
            CHECK(furthest(got.metrics[0].loss, other.metrics[0].loss) > 1e-3);
            CHECK(run(blocks, {{&packed.batch}}).gradients == got.gradients);
        }
}
