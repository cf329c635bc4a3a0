#include "eyas/ingest/scan.hpp"

#include <catch2/catch.hpp>

#include "eyas/store/local_files.hpp"
#include "eyas/store/store.hpp"
#include "tests/ingest/feature_directory.hpp"

using namespace eyas;
using test::FeatureDirectory;

TEST_CASE("feature files are found in every directory, in lexicographic order of the whole path") {
    const FeatureDirectory dir("scan");
    for (const char* f :
         {"rows_0-2000/data_10.ckpt", "rows_0-2000/data_2.ckpt", "rows_0-2000-x/data_0.ckpt",
          "a.ckpt", "rows_0-2000/data_1.ckpt.gz", "Z.ckpt"})
        dir.add(f, 1);
    write_text_file(dir.path() / "notes.txt", "x");
    write_text_file(dir.path() / "data.ckpt.tmp", "x");
    eyas::create_directories(dir.path() / "folder.ckpt");
    std::vector<std::string> found;
    for (const auto& p : feature_files(dir.path() / "."))
        found.push_back(p.lexically_relative(dir.path()).string());
    CHECK(found == std::vector<std::string>{"Z.ckpt", "a.ckpt", "rows_0-2000-x/data_0.ckpt",
                                            "rows_0-2000/data_1.ckpt.gz",
                                            "rows_0-2000/data_10.ckpt", "rows_0-2000/data_2.ckpt"});
    CHECK(feature_files(dir.path() / "a.ckpt").size() == 1);
    CHECK(feature_files(dir.path().string() + "/") == feature_files(dir.path()));
    CHECK(feature_files(dir.path())[0].is_absolute());
}

TEST_CASE("a place without feature files is refused") {
    const FeatureDirectory dir("scan_empty");
    CHECK_THROWS_AS(feature_files(dir.path()), DataError);
    CHECK_THROWS_AS(feature_files(dir.path() / "absent"), DataError);
}

TEST_CASE("what was put into the colocated store is not taken for captured files") {
    const FeatureDirectory dir("scan_put");
    dir.add("data_0.ckpt", 1);
    Store<LocalFiles> store({.root = dir.path(), .durable = false});
    store.put({.sample_id = "other", .run_id = "r"}, test::FakeSample(3, 4, 1).tensors);
    CHECK(feature_files(dir.path()).size() == 1);
}

TEST_CASE("refs to files carry the reference's fields and the files' shapes") {
    const auto dir = std::filesystem::path("tests/loader/testdata/rows_0-2000");
    const auto m = scan_features(dir, {.run_id = "golden"});
    const auto golden = read_manifest("tests/sample/testdata/manifest.json");
    REQUIRE(m.refs.size() == 7);
    for (std::size_t i = 0; i < 7; ++i) {
        const auto &r = m.refs[i], &want = golden.refs[i];
        CHECK(r.sample_id == want.sample_id);
        CHECK(r.feature_specs == want.feature_specs);
        CHECK(r.num_tokens == want.num_tokens);
        CHECK(r.estimated_bytes == want.estimated_bytes);
    }
    CHECK(m.refs[6].feature_store_uri ==
          "file://" + (std::filesystem::absolute(dir) / "data_6.ckpt.gz").string());
    CHECK(m.refs[2].metadata.dump() ==
          R"({"format":"offline_eagle3","target_repr":"hidden_state","schema_version":1,)"
          R"("ttt_length":7,"max_len":2048,"file_index":2})");
}

TEST_CASE("without headers no file is opened") {
    const FeatureDirectory dir("scan_names");
    write_text_file(dir.path() / "broken.ckpt", "not a torch file");
    const auto m = scan_features(dir.path(), {.read_headers = false});
    CHECK(m.refs.at(0).feature_specs.empty());
    CHECK_THROWS_AS(scan_features(dir.path()), DataError);
}
