// The same trainer, pipeline and checkpoints over a device that has memory of its own.
#include "eyas/device/host_blocks.hpp"
#include "tests/cuda/own_memory.hpp"

using namespace eyas;

TEMPLATE_TEST_CASE("a run on a device with its own memory, killed and resumed", "", F32, Bf16) {
    test::own_memory::killed_and_resumed<TestType, HostBlocks>();
}

TEMPLATE_TEST_CASE("packed rows on a device with its own memory", "", F32, Bf16) {
    test::own_memory::packed_rows<TestType, HostBlocks>();
}
