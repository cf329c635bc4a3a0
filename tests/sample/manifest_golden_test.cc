#include <catch2/catch.hpp>

#include "eyas/sample/manifest.hpp"

using namespace eyas;

TEST_CASE("the reference's manifests are read, and written with the same keys in the same order") {
    for (const std::string name : {"manifest.json", "manifest_reput.json"}) {
        const auto path = "tests/sample/testdata/" + name;
        const auto manifest = read_manifest(path);
        const auto text = read_json_file<OrderedJson>(path);
        REQUIRE(manifest.refs.size() == text.at("refs").size());
        for (std::size_t i = 0; i < manifest.refs.size(); ++i)
            CHECK(ref_to_json(manifest.refs[i]).dump() == text.at("refs")[i].dump());
    }
}

TEST_CASE("fields of the reference's refs arrive where they belong") {
    const auto m = read_manifest("tests/sample/testdata/manifest.json");
    REQUIRE(m.refs.size() == 7);
    const auto& r = m.refs[6];
    CHECK(r.sample_id == "golden:00000006");
    CHECK(r.feature_store_uri == "disagg://golden/golden:00000006");
    CHECK(r.spec("aux_hidden_state").shape == Shape{1, 19, 24});
    CHECK(r.spec("aux_hidden_state").dtype == DType::BF16);
    CHECK(r.stored_name("hidden_state") == "hidden_state");
    CHECK(r.num_tokens == 19);
    CHECK(r.estimated_bytes == 1520);
    CHECK(r.generation() == 1);
    CHECK(read_manifest("tests/sample/testdata/manifest_reput.json").refs[0].generation() == 2);
}
