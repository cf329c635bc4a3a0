#include "conformance.hpp"
#include "eyas/store/local_files.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/shared_directory.hpp"
#include "scratch.hpp"

using namespace eyas;

TEST_CASE("Memory") {
    conformance::check_store<Memory>([] { return Memory::Options{}; });
}
TEST_CASE("LocalFiles") {
    test::Scratch dir;
    conformance::check_store<LocalFiles>(
        [&] { return LocalFiles::Options{.root = dir.fresh(), .durable = false}; });
}
TEST_CASE("SharedDirectory, safetensors") {
    test::Scratch dir;
    conformance::check_store<SharedDirectory>(
        [&] { return SharedDirectory::Options{.root = dir.fresh(), .files = {.durable = false}}; });
}
TEST_CASE("SharedDirectory, the reference's payload") {
    test::Scratch dir;
    conformance::check_store<SharedDirectory>([&] {
        return SharedDirectory::Options{
            .root = dir.fresh(), .files = {.payload = PayloadFormat::Ckpt, .durable = false}};
    });
}
