#include <catch2/catch.hpp>
#include <fstream>
#include <limits>

#include "eyas/ingest/ingest.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/packed_shards.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/store/store.hpp"
#include "tests/ingest/feature_directory.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::FakeSample;
using test::FeatureDirectory;

namespace {

constexpr const char* first_object = "disagg:00000000.g1.ckpt";

/// Feature files and a store on one file system.
struct Place {
    FeatureDirectory dir;
    std::filesystem::path features = dir.path() / "features";

    explicit Place(const std::string& name) : dir(name) {
        for (int i = 0; i < 3; ++i) dir.add("features/" + std::to_string(i) + ".ckpt", i + 1);
    }
    SharedDirectory::Options store(const std::string& id, PayloadFormat payload) const {
        return {
            .root = dir.path(), .store_id = id, .files = {.payload = payload, .durable = false}};
    }
    SharedDirectory::Options store(const std::string& id = "store") const {
        return store(id, PayloadFormat::Safetensors);
    }
};

template <class S>
void require_samples(S& store, const Manifest& manifest) {
    for (std::size_t i = 0; i < manifest.refs.size(); ++i) {
        const FakeSample want(6, 4, static_cast<std::int64_t>(i) + 1);
        const auto lease = store.acquire(manifest.refs[i]);
        for (const auto& t : store.view(lease))
            REQUIRE(std::ranges::equal(
                t.tensor.bytes(),
                std::ranges::find(want.tensors, t.name, &NamedTensor::name)->tensor.bytes()));
    }
}

/// Changes bytes of hidden_state where they lie in a feature file.
void damage_states(const std::filesystem::path& file, std::int64_t seed) {
    auto text = read_text_file(file);
    const FakeSample s(6, 4, seed);
    const auto raw = s.tensors[2].tensor.bytes();
    const auto at = text.find(std::string(reinterpret_cast<const char*>(raw.data()), raw.size()));
    REQUIRE(at != std::string::npos);
    text[at + 5] = static_cast<char>(text[at + 5] ^ 1);
    write_text_file(file, text);
}

}  // namespace

TEST_CASE("linked files are the store's, and their refs those of a copying ingest") {
    const Place place("link_refs");
    Store<SharedDirectory> linked(place.store("s")),
        copied({.root = place.dir.path() / "other", .store_id = "s", .files = {.durable = false}});
    const auto a = ingest(linked, place.features, {.link = true});
    const auto b = ingest(copied, place.features);
    REQUIRE(a.manifest.refs.size() == 3);
    CHECK(a.manifest == b.manifest);
    CHECK(a.bytes == b.bytes);
    require_samples(linked, a.manifest);
    CHECK(linked.health().resident_objects == 3);
    CHECK(linked.health().bytes_written == 0);
    // Second names of the same files; only a clone, where the file system has those, is another.
    const auto object = place.dir.path() / "s" / first_object;
    if (std::filesystem::hard_link_count(object) > 1)
        CHECK(std::filesystem::equivalent(object, place.features / "0.ckpt"));
    else
        WARN("SKIPPED: this file system clones, so that there is no second name to look for");
    std::filesystem::remove_all(place.features);  // the store keeps what it adopted
    require_samples(linked, a.manifest);
}

TEST_CASE("states are not read when files are linked, but verified when they are") {
    const Place place("link_unread");
    damage_states(place.features / "1.ckpt", 2);
    place.dir.add("features/2.ckpt", 3, [](FakeSample& s) {
        s.owned[3].as<BFloat16>()[0] = BFloat16(std::numeric_limits<float>::quiet_NaN());
    });
    Store<SharedDirectory> store(place.store());
    CHECK_THROWS_AS(ingest(store, place.features), DataError);
    const auto linked = ingest(store, place.features, {.link = true}).manifest;
    CHECK_NOTHROW(store.acquire(linked.refs[0]));
    const auto damaged = store.acquire(linked.refs[1]);
    CHECK_THROWS_WITH(store.view(damaged), Contains("checksum"));
    CHECK_NOTHROW(store.acquire(linked.refs[2]));
}

TEST_CASE("what is no sample is refused before it is linked") {
    const Place place("link_bad");
    place.dir.add("features/3.ckpt", 4, [](FakeSample& s) { s.tensors.pop_back(); });
    place.dir.add("features/4.ckpt", 5,
                  [](FakeSample& s) { s.owned[0].as<std::int64_t>()[2] = -1; });
    place.dir.add("features/5.ckpt", 6,
                  [](FakeSample& s) { std::ranges::fill(s.owned[1].as<std::int64_t>(), 0); });
    write_text_file(place.features / "6.ckpt.gz", "compressed");
    write_text_file(place.features / "7.ckpt", "no torch file");
    Store<SharedDirectory> store(place.store());
    const auto report = ingest(store, place.features, {.skip_bad = true, .link = true});
    CHECK(report.manifest.refs.size() == 3);
    REQUIRE(report.bad.size() == 5);
    CHECK_THAT(report.bad[3].error, Contains("cannot be linked"));
    CHECK(store.health().resident_objects == 3);
}

TEST_CASE("a linked sample obeys generations, quota, credentials and consumption as others do") {
    const Place place("link_policy");
    Store<SharedDirectory> store(place.store(), {.retain_on_release = false});
    const auto first = ingest(store, place.features, {.link = true}).manifest;
    const auto second = ingest(store, place.features, {.link = true}).manifest;
    CHECK(second.refs[0].generation() == 2);
    CHECK_THROWS_AS(store.acquire(first.refs[0]), StaleReferenceError);
    CHECK(store.health().resident_objects == 3);
    require_samples(store, second);
    for (const auto& ref : second.refs) store.release(store.acquire(ref));
    CHECK(store.health().resident_objects == 0);
    CHECK(std::filesystem::exists(place.features / "0.ckpt"));  // the producer's own name stays
    CHECK(ingest(store, place.features, {.link = true}).manifest.refs[0].generation() == 3);

    Store<SharedDirectory> small(place.store("small"), {.quota_bytes = 100});
    CHECK_THROWS_AS(ingest(small, place.features, {.link = true}), ResourceError);
    CHECK(small.health().resident_objects == 0);

    Store<SharedDirectory> closed(place.store("closed"), {.auth_token = "secret"});
    ingest(closed, place.features, {.link = true});
    write_text_file(place.dir.path() / "closed" / ".eyas-credential", "another\n");
    CHECK_THROWS_AS(ingest(closed, place.features, {.link = true}), AuthenticationError);
}

TEST_CASE("files are linked beside packed samples and beside copies of either payload") {
    const Place place("link_beside");
    std::filesystem::create_directories(place.dir.path() / "packed");
    Store<PackedShards> packed({.root = place.dir.path() / "packed", .durable = false});
    require_samples(packed, ingest(packed, place.features, {.link = true}).manifest);
    Store<SharedDirectory> store(place.store("ckpt", PayloadFormat::Ckpt));
    const auto copied = ingest(store, place.features).manifest;
    const auto linked = ingest(store, place.features, {.link = true}).manifest;
    CHECK(linked.refs[0].generation() == copied.refs[0].generation() + 1);
    require_samples(store, linked);
}

TEST_CASE("a store that keeps no files, or lies on another file system, says so") {
    const Place place("link_elsewhere");
    Store<Memory> memory({});
    CHECK_THROWS_WITH(ingest(memory, place.features, {.link = true}), Contains("without a copy"));
    struct stat here {
    }, other{};
    const std::filesystem::path shm = "/dev/shm";
    if (::stat(place.features.c_str(), &here) != 0 || ::stat(shm.c_str(), &other) != 0 ||
        here.st_dev == other.st_dev) {
        WARN("SKIPPED: there is no second file system");
        return;
    }
    const auto root = shm / ("eyas-link-" + std::to_string(::getpid()));
    {
        Store<SharedDirectory> store({.root = root, .files = {.durable = false}});
        CHECK_THROWS_WITH(ingest(store, place.features, {.link = true}),
                          Contains("one file system"));
        CHECK(store.health().resident_objects == 0);
    }
    std::filesystem::remove_all(root);
}
