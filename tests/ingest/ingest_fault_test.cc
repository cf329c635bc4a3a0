#include <catch2/catch.hpp>
#include <fstream>
#include <limits>

#include "eyas/ingest/ingest.hpp"
#include "tests/ingest/feature_directory.hpp"

using namespace eyas;
using test::FakeSample;
using test::FakeStore;
using test::FeatureDirectory;

namespace {

void make_bad(const FeatureDirectory& dir, const std::string& file, const std::string& kind) {
    const auto path = dir.path() / file;
    if (kind == "garbage") {
        write_text_file(path, "this is no torch file");
    } else if (kind == "truncated") {
        dir.add(file, 1);
        std::filesystem::resize_file(path, std::filesystem::file_size(path) - 40);
    } else if (kind == "flipped") {
        dir.add(file, 1);
        auto text = read_text_file(path);
        const FakeSample s(6, 4, 1);
        const auto raw = s.tensors[2].tensor.bytes();
        const auto at =
            text.find(std::string(reinterpret_cast<const char*>(raw.data()), raw.size()));
        REQUIRE(at != std::string::npos);
        text[at + 5] = static_cast<char>(text[at + 5] ^ 1);
        write_text_file(path, text);
    } else if (kind == "missing") {
        dir.add(file, 1, [](FakeSample& s) { s.tensors.pop_back(); });
    } else if (kind == "nan") {
        dir.add(file, 1, [](FakeSample& s) {
            s.owned[2].as<BFloat16>()[0] = BFloat16(std::numeric_limits<float>::quiet_NaN());
        });
    } else if (kind == "masked") {
        dir.add(file, 1,
                [](FakeSample& s) { std::ranges::fill(s.owned[1].as<std::int64_t>(), 0); });
    } else {
        dir.add(file, 1, [](FakeSample& s) { s = FakeSample(6, 5, 1); });  // another width
    }
}

constexpr const char* kinds[] = {"garbage", "truncated", "flipped", "missing",
                                 "nan",     "masked",    "width"};

}  // namespace

TEST_CASE("the first bad file stops the ingest; nothing after it is put") {
    for (const std::string kind : kinds) {
        INFO(kind);
        const FeatureDirectory dir("ingest_stop");
        dir.add("0.ckpt", 1);
        make_bad(dir, "1.ckpt", kind);
        dir.add("2.ckpt", 2);
        FakeStore store;
        std::vector<std::string> put;
        const auto run = [&] {
            ingest(store, dir.path(), {.run_id = "r"},
                   [&](const IngestProgress& p) { put.push_back(p.ref->sample_id); });
        };
        CHECK_THROWS_AS(run(), DataError);
        CHECK(put == std::vector<std::string>{"r:00000000"});
        CHECK_THROWS_WITH(run(), Catch::Matchers::Contains("1.ckpt"));
        CHECK_THROWS_AS(store.acquire({.sample_id = "r:00000002", .run_id = "r"}),
                        StaleReferenceError);
    }
}

TEST_CASE("skip_bad lists what was left out; the ids of the others do not move") {
    const FeatureDirectory dir("ingest_skip");
    dir.add("0.ckpt", 1);
    int n = 0;
    for (const std::string kind : kinds) make_bad(dir, std::to_string(++n) + ".ckpt", kind);
    dir.add("9.ckpt", 2);
    FakeStore store;
    std::size_t last_bad = 0;
    const auto report = ingest(store, dir.path(), {.run_id = "r", .skip_bad = true},
                               [&](const IngestProgress& p) { last_bad = p.bad; });
    REQUIRE(report.bad.size() == 7);
    CHECK(last_bad == 7);
    for (std::size_t i = 0; i < 7; ++i) {
        CHECK(report.bad[i].path.filename() == std::to_string(i + 1) + ".ckpt");
        CHECK(report.bad[i].error.find(report.bad[i].path.string()) != std::string::npos);
    }
    REQUIRE(report.manifest.refs.size() == 2);
    CHECK(report.manifest.refs[1].sample_id == "r:00000008");
    CHECK(report.manifest.refs[1].metadata.at("file_index") == 8);
}

TEST_CASE("errors of the store are not skipped") {
    const FeatureDirectory dir("ingest_store");
    dir.add("0.ckpt", 1);
    dir.add("1.ckpt", 1);
    FakeStore store;
    store.fail_put = "r:00000001";
    CHECK_THROWS_AS(ingest(store, dir.path(), {.run_id = "r", .skip_bad = true}), ResourceError);
}

TEST_CASE("ids outside a known vocabulary are refused") {
    const FeatureDirectory dir("ingest_vocab");
    dir.add("0.ckpt", 1);  // ids 100 to 105
    FakeStore store;
    CHECK_NOTHROW(ingest(store, dir.path(), {.vocab_size = 106}));
    CHECK_THROWS_AS(ingest(store, dir.path(), {.vocab_size = 105}), DataError);
}
