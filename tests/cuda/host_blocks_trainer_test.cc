// The same trainer, pipeline and checkpoints over a device that has memory of its own.
#include "eyas/device/host_blocks.hpp"
#include "tests/collective/thread_group.hpp"
#include "tests/cuda/own_memory.hpp"

using namespace eyas;
using test::TinyDraft;

TEMPLATE_TEST_CASE("a run on a device with its own memory, killed and resumed", "", F32, Bf16) {
    test::own_memory::killed_and_resumed<TestType, HostBlocks>();
}

TEMPLATE_TEST_CASE("packed rows on a device with its own memory", "", F32, Bf16) {
    test::own_memory::packed_rows<TestType, HostBlocks>();
}

TEST_CASE("several ranks on devices with their own memory are refused") {
    test::ThreadGroup group(2);
    const auto errors = test::on_both([&](int r) {
        TinyDraft<F32, HostBlocks> draft;
        Trainer<Eagle3<HostBlocks, F32>, test::ThreadMember>(*draft.model, TrainerOptions(),
                                                             test::ThreadMember(group, r));
    });
    for (const auto& e : errors) {
        CHECK_THAT(e, Catch::Contains("memory of its own") && Catch::Contains("2 ranks"));
        CHECK_THAT(e, Catch::Contains("Train in one process"));
    }
}
