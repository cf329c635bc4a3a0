#include <catch2/catch.hpp>

#include "eyas/format/safetensors.hpp"
#include "eyas/ingest/ingest.hpp"
#include "eyas/ingest/scan.hpp"
#include "eyas/loader/loader.hpp"
#include "eyas/store/local_files.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/store.hpp"

using namespace eyas;

namespace {

constexpr const char* directory = "tests/loader/testdata/rows_0-2000";

// Every batch of the reference's loader, for each of its settings, bit for bit.
template <class S>
void compare_with_reference(S& store, const Manifest& manifest, std::int64_t prefetch) {
    const SafetensorsFile golden("tests/loader/testdata/loader_batches.safetensors");
    const auto expected = read_json_file("tests/loader/testdata/expected.json");
    std::size_t compared = 0;
    for (const auto& setting : expected.at("loader")) {
        LoaderOptions o;
        o.batch_size = setting.at("batch_size");
        o.max_len = setting.at("max_len");
        o.drop_last = setting.at("drop_last");
        o.shuffle = false;
        o.prefetch = prefetch;
        Loader loader(store, manifest, o);
        const auto& ids = setting.at("sample_ids");
        for (std::size_t i = 0; i < ids.size(); ++i) {
            const auto* b = loader.next();
            REQUIRE(b);
            CHECK(b->sample_ids == ids[i].template get<std::vector<std::string>>());
            const auto name =
                setting.at("tag").template get<std::string>() + "." + std::to_string(i);
            const std::pair<const char*, TensorView> tensors[] = {
                {".input_ids", b->input_ids},
                {".attention_mask", b->attention_mask},
                {".loss_mask", b->loss_mask},
                {".hidden_state", b->hidden_state},
                {".target", b->target}};
            for (const auto& [suffix, have] : tensors) {
                INFO(name + suffix);
                const auto want = golden.at(name + suffix);
                CHECK(have.dtype == want.dtype);
                REQUIRE(have.shape == want.shape);
                CHECK(std::ranges::equal(have.bytes(), want.bytes()));
                ++compared;
            }
        }
        CHECK(loader.next() == nullptr);
    }
    CHECK(compared == golden.tensors().size());
}

}  // namespace

TEST_CASE("batches from feature files where they lie are the reference's") {
    Store<LocalFiles> store({.root = directory});
    const auto headers = GENERATE(true, false);
    const auto m = scan_features(directory, {.run_id = "golden", .read_headers = headers});
    compare_with_reference(store, m, 2);
}

TEST_CASE("batches from ingested samples are the reference's") {
    Store<Memory> store({});
    const auto m = ingest(store, directory, {.run_id = "golden"}).manifest;
    compare_with_reference(store, m, 0);
    compare_with_reference(store, m, 3);
}

TEST_CASE("a consume-once store is empty after an acknowledged epoch, no sample was read twice") {
    Store<Memory> store({}, {.retain_on_release = false});
    const auto m = ingest(store, directory, {.run_id = "golden"}).manifest;
    Loader loader(store, m, LoaderOptions{.batch_size = 2, .drop_last = false});
    while (loader.next()) {
    }
    CHECK(store.health().resident_objects == 7);  // until what was done with them is safe
    loader.acknowledge(loader.position(), 1);
    CHECK(store.health().resident_objects == 0);
    CHECK(store.health().reads == 7);
    CHECK(store.health().active_leases == 0);
    loader.seek({0, 0});
    CHECK_THROWS_AS(loader.next(), StaleReferenceError);
}
