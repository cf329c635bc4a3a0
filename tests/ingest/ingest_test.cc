#include "eyas/ingest/ingest.hpp"

#include <catch2/catch.hpp>

#include "eyas/store/memory.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/store/store.hpp"
#include "tests/ingest/feature_directory.hpp"

using namespace eyas;
using test::FakeSample;
using test::FeatureDirectory;

namespace {

const std::filesystem::path golden_rows = "tests/loader/testdata/rows_0-2000";

// Every stored tensor is the file's, bit for bit.
template <class S>
void check_stored(S& store, const Manifest& m) {
    const auto files = feature_files(golden_rows);
    REQUIRE(m.refs.size() == files.size());
    for (std::size_t i = 0; i < files.size(); ++i) {
        const TorchFile file(files[i]);
        const auto lease = store.acquire(m.refs[i]);
        const auto views = store.view(lease);
        CHECK(views.size() == 4);
        for (const auto& t : views) {
            const auto want = file.at(t.name);
            REQUIRE(t.tensor.shape == want.shape);
            CHECK(std::ranges::equal(t.tensor.bytes(), want.bytes()));
        }
    }
}

}  // namespace

TEST_CASE("refs of ingested files are the reference's, field by field") {
    const FeatureDirectory dir("ingest_golden");
    Store<SharedDirectory> store(
        {.root = dir.path(), .store_id = "golden", .files = {.durable = false}});
    const auto report = ingest(store, golden_rows, {.run_id = "golden"});
    CHECK(report.bad.empty());
    CHECK(report.bytes == 3 * 1680 + 3 * 1920 + 1520);
    const auto want = read_manifest("tests/sample/testdata/manifest.json");
    REQUIRE(report.manifest.refs.size() == want.refs.size());
    for (std::size_t i = 0; i < want.refs.size(); ++i)
        CHECK(ref_to_json(report.manifest.refs[i]).dump() == ref_to_json(want.refs[i]).dump());
    check_stored(store, report.manifest);
}

TEST_CASE("ingested tensors are the files', verbatim") {
    Store<Memory> store({});
    check_stored(store, ingest(store, golden_rows).manifest);
}

TEST_CASE("progress is told after each file") {
    test::FakeStore store;
    std::vector<std::string> seen;
    std::uint64_t bytes = 0;
    const auto report = ingest(store, golden_rows, {.limit = 2}, [&](const IngestProgress& p) {
        CHECK(p.total == 2);
        CHECK(p.done == seen.size() + 1);
        CHECK(p.bytes > bytes);
        bytes = p.bytes;
        seen.push_back(p.ref->sample_id);
    });
    CHECK(seen == std::vector<std::string>{"disagg:00000000", "disagg:00000001"});
    CHECK(report.manifest.refs.size() == 2);
}
