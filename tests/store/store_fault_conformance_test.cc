// The suites of failing backends and of several processes, for every backend of this machine.
#include "conformance_fault.hpp"
#include "conformance_process.hpp"
#include "eyas/store/local_files.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/packed_shards.hpp"
#include "eyas/store/shared_directory.hpp"

using namespace eyas;

namespace {
SharedDirectory::Options shared(const std::filesystem::path& root, PayloadFormat payload) {
    return {.root = root, .files = {.payload = payload, .durable = false}};
}
}  // namespace

TEST_CASE("Memory that fails") {
    conformance::check_store_faults<Memory>([] { return Memory::Options{}; });
}
TEST_CASE("LocalFiles that fail, and in several processes") {
    test::Scratch dir;
    const auto place = [&] { return LocalFiles::Options{.root = dir.fresh(), .durable = false}; };
    conformance::check_processes<LocalFiles>(place);
    conformance::check_store_faults<LocalFiles>(place);
}
TEST_CASE("PackedShards that fail, and in several processes") {
    test::Scratch dir;
    const auto place = [&] { return PackedShards::Options{.root = dir.fresh(), .durable = false}; };
    conformance::check_processes<PackedShards>(place);
    conformance::check_store_faults<PackedShards>(place);
}
TEST_CASE("SharedDirectory that fails, and in several processes") {
    for (const auto payload : {PayloadFormat::Safetensors, PayloadFormat::Ckpt}) {
        test::Scratch dir;
        const auto place = [&] { return shared(dir.fresh(), payload); };
        conformance::check_processes<SharedDirectory>(place);
        conformance::check_store_faults<SharedDirectory>(place);
    }
}
