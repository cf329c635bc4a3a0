#include "eyas/sample/manifest.hpp"

#include <catch2/catch.hpp>
#include <cstdlib>

using namespace eyas;

namespace {

std::filesystem::path scratch(const std::string& name) {
    const char* dir = std::getenv("TEST_TMPDIR");
    return (dir ? std::filesystem::path(dir) : std::filesystem::temp_directory_path()) /
           ("eyas_manifest_test_" + std::to_string(::getpid())) / name;
}

Manifest one() {
    SampleRef r{.sample_id = "run:00000000", .run_id = "run"};
    r.feature_store_uri = "disagg://s/run:00000000";
    r.feature_keys = {{"input_ids", "run:00000000/input_ids"}};
    r.feature_specs = {{.name = "input_ids", .shape = Shape{5}, .dtype = DType::I64}};
    r.num_tokens = 5;
    r.metadata = {{"run_id", "run"}, {"generation", 3}};
    return {.refs = {r}};
}

OrderedJson json_of(const Manifest& m) {
    return {{"schema_version", 1}, {"refs", OrderedJson::array({ref_to_json(m.refs[0])})}};
}

void check_refused(const OrderedJson& j, const std::string& words) {
    const auto path = scratch("bad.json");
    eyas::create_directories(path.parent_path());
    write_text_file(path, j.dump());
    CHECK_THROWS_AS(read_manifest(path), DataError);
    CHECK_THROWS_WITH(read_manifest(path),
                      Catch::Matchers::Contains(words) && Catch::Matchers::Contains(path.string()));
}

}  // namespace

TEST_CASE("a manifest that is written is read the same") {
    const auto path = scratch("deep/er/manifest.json");
    auto m = one();
    m.refs.push_back(m.refs[0]);
    m.refs[1].sample_id = "Z\xc3\xbcrich \"quoted\"\n";
    m.refs[1].source_task_id = "task";
    m.refs[1].feature_specs[0].target_repr = "hidden_state";
    m.refs[1].feature_specs[0].target_meta = {{"softmax", "fp32"}};
    write_manifest(path, m);
    CHECK(read_manifest(path) == m);
    write_manifest(path, {});
    CHECK(read_manifest(path).refs.empty());
}

TEST_CASE("what ref accessors say") {
    const auto r = one().refs[0];
    CHECK(r.generation() == 3);
    CHECK(SampleRef{.sample_id = "a", .run_id = "b"}.generation() == 0);
    CHECK(r.spec("input_ids").size_bytes() == 40);
    CHECK_THROWS_AS(r.spec("target"), DataError);
    CHECK(r.stored_name("input_ids") == "input_ids");
    CHECK(r.stored_name("loss_mask") == "loss_mask");
}

TEST_CASE("manifests of another schema are refused") {
    auto j = json_of(one());
    SECTION("of the manifest") {
        j["schema_version"] = 2;
        check_refused(j, "schema version 2");
    }
    SECTION("of a ref") {
        j["refs"][0]["schema_version"] = 7;
        check_refused(j, "refs[0].schema_version");
    }
    SECTION("not an integer") {
        j["schema_version"] = 1.0;
        check_refused(j, "expected an integer");
    }
}

TEST_CASE("missing, unknown and mistyped keys are refused by name") {
    auto j = json_of(one());
    auto& ref = j["refs"][0];
    for (const char* key : {"sample_id", "run_id", "feature_store_uri", "feature_keys",
                            "feature_specs", "strategy"}) {
        auto copy = j;
        copy["refs"][0].erase(key);
        check_refused(copy, key);
    }
    for (const char* key : {"name", "shape", "dtype"}) {
        auto copy = j;
        copy["refs"][0]["feature_specs"]["input_ids"].erase(key);
        check_refused(copy, key);
    }
    SECTION("unknown") {
        ref["tensor"] = 1;
        check_refused(j, "unknown key 'tensor'");
    }
    SECTION("number for text") {
        ref["run_id"] = 5;
        check_refused(j, "run_id");
    }
    SECTION("negative count") {
        ref["num_tokens"] = -1;
        check_refused(j, "num_tokens");
    }
    SECTION("count above int64") {
        ref["estimated_bytes"] = std::uint64_t{1} << 63;
        check_refused(j, "estimated_bytes");
    }
    SECTION("impossible shape") {
        ref["feature_specs"]["input_ids"]["shape"] = {std::int64_t{1} << 40, std::int64_t{1} << 40};
        check_refused(j, "shape");
    }
    SECTION("unknown dtype") {
        ref["feature_specs"]["input_ids"]["dtype"] = "float7";
        check_refused(j, "float7");
    }
    SECTION("a list in place of refs") { check_refused(OrderedJson::array({1}), "not a manifest"); }
    SECTION("generation that is no integer") {
        ref["metadata"]["generation"] = "1";
        check_refused(j, "generation");
    }
}

TEST_CASE("a manifest carries metadata only") {
    auto j = json_of(one());
    j["refs"][0]["metadata"]["hidden"] = std::vector<double>(1000, 0.5);
    check_refused(j, "metadata.hidden");

    const auto path = scratch("never.json");
    auto m = one();
    m.refs[0].metadata["hidden"] = std::vector<double>(1000, 0.5);
    CHECK_THROWS_AS(write_manifest(path, m), ContractError);
    m = one();
    m.refs[0].run_id = "\xff not UTF-8";
    CHECK_THROWS_AS(write_manifest(path, m), ContractError);
    CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("an id that occurs twice is refused") {
    auto j = json_of(one());
    j["refs"].push_back(j["refs"][0]);
    check_refused(j, "'run:00000000' occurs twice");
}

TEST_CASE("numbers that are not finite and broken JSON are refused") {
    const auto path = scratch("text.json");
    eyas::create_directories(path.parent_path());
    for (const char* text :
         {R"({"schema_version": 1, "refs": [)", R"({"schema_version": 1e999, "refs": []})",
          R"({"schema_version": NaN, "refs": []})", ""}) {
        write_text_file(path, text);
        CHECK_THROWS_AS(read_manifest(path), DataError);
    }
}
