// The suites of failing backends and of several processes, for every backend of this machine.
#include <future>

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

TEST_CASE("puts at once do not pass the quota together") {
    using Slow = conformance::FaultyBackend<Memory>;
    const conformance::Sample a(1, 100);
    constexpr int puts = 8, room = 3;
    const Slow::Options place;
    place.faults->slow_publishes = puts;
    Store<Slow> store(place, {.quota_bytes = room * a.bytes()});
    std::vector<std::future<bool>> all;
    for (int i = 0; i < puts; ++i)
        all.push_back(std::async(std::launch::async, [&, i] {
            try {
                store.put(conformance::prototype("s" + std::to_string(i)), a.features());
                return true;
            } catch (const ResourceError&) {
                return false;
            }
        }));
    int good = 0;
    for (auto& f : all) good += f.get();
    REQUIRE(good == room);
    REQUIRE(store.health().resident_bytes == room * a.bytes());

    // What is stored, and what failed, keeps no room; a sample that is put again needs none.
    place.faults->slow_publishes = 0;
    const auto held = store.backend().objects();
    store.put(conformance::prototype(held[0].key.sample), a.features());
    store.backend().erase(held[1].key);
    place.faults->publishes = 1;
    REQUIRE_THROWS_AS(store.put(conformance::prototype("new"), a.features()), ResourceError);
    store.put(conformance::prototype("new"), a.features());
    REQUIRE_THROWS_AS(store.put(conformance::prototype("more"), a.features()), ResourceError);
}
