#include "eyas/sample/capture_convention.hpp"

#include <catch2/catch.hpp>
#include <functional>

#include "tests/store/scratch.hpp"

using namespace eyas;
using Catch::Matchers::Contains;

namespace {
CaptureConvention convention() {
    return {.target_id = "tiny",
            .target = "0123456789abcdef",
            .layers = {1, 5, 8},
            .tokenizer = "fedcba9876543210",
            .vocab_size = 50,
            .hidden_size = 20};
}

SampleRef ref(const std::string& id, const std::optional<CaptureConvention>& c) {
    SampleRef r;
    r.sample_id = id;
    r.run_id = "run";
    tell_convention(r, c);
    return r;
}
}  // namespace

TEST_CASE("a convention comes back from JSON, and fits the bounds of metadata") {
    const auto c = convention();
    const auto j = convention_to_json(c);
    const auto again = convention_from_json(j, "x");
    CHECK(again == c);
    CHECK(again.target_id == "tiny");
    CHECK(again.norm == "final_norm");
    CHECK(again.dtype == "bfloat16");
    CHECK(again.precision == "float32");
    check_metadata(ref("a", c).metadata, "x");
    // A ref of it is a ref of the manifest's schema, and says the same when it is read again.
    const auto read = ref_from_json(ref_to_json(ref("a", c)), "x");
    CHECK(convention_of(read) == c);
    CHECK_FALSE(convention_of(ref("a", std::nullopt)).has_value());
}

TEST_CASE("a difference names the first field that differs, and both values") {
    const auto a = convention();
    const auto other = [&](const std::function<void(CaptureConvention&)>& change) {
        auto b = a;
        change(b);
        CHECK_FALSE(a == b);
        return *difference(a, b);
    };
    CHECK_FALSE(difference(a, a).has_value());
    CHECK(other([](auto& b) { b.target = "1123456789abcdef"; }) ==
          "target: \"0123456789abcdef\" and \"1123456789abcdef\"");
    CHECK(other([](auto& b) { b.layers = {2, 5, 8}; }) == "layers: [1,5,8] and [2,5,8]");
    CHECK(other([](auto& b) { b.norm = "none"; }) == "norm: \"final_norm\" and \"none\"");
    CHECK(other([](auto& b) { b.tokenizer = "0"; }) == "tokenizer: \"fedcba9876543210\" and \"0\"");
    CHECK(other([](auto& b) { b.vocab_size = 51; }) == "vocab_size: 50 and 51");
    CHECK(other([](auto& b) { b.hidden_size = 21; }) == "hidden_size: 20 and 21");
    CHECK(other([](auto& b) { b.dtype = "float32"; }) == "dtype: \"bfloat16\" and \"float32\"");
    CHECK(other([](auto& b) { b.precision = "bfloat16"; }) ==
          "precision: \"float32\" and \"bfloat16\"");
    // The first in their order, where there are several.
    CHECK(other([](auto& b) { b.dtype = "float32", b.vocab_size = 9; }) == "vocab_size: 50 and 9");
}

TEST_CASE("what does not say in which precision is of a version that knew fp32 only") {
    auto rounded = convention();
    rounded.precision = "bfloat16";
    auto j = convention_to_json(rounded);
    CHECK(convention_from_json(j, "x") == rounded);
    j.erase("precision");
    CHECK(convention_from_json(j, "x") == convention());
}

TEST_CASE("a name, and a tokenizer that one side does not know, are not compared") {
    auto renamed = convention(), unknown = convention();
    renamed.target_id = "/elsewhere/tiny";
    unknown.tokenizer = "";
    CHECK(renamed == convention());
    CHECK(unknown == convention());
    CHECK(convention() == unknown);
}

TEST_CASE("what no capture writes is refused, with the field") {
    const auto refused = [](const char* key, const OrderedJson& value, const char* what) {
        auto j = convention_to_json(convention());
        if (value.is_discarded())
            j.erase(key);
        else
            j[key] = value;
        INFO(j.dump());
        CHECK_THROWS_MATCHES(convention_from_json(j, "here"), DataError,
                             Catch::Predicate<DataError>([&](const DataError& e) {
                                 const std::string text = e.what();
                                 return text.find("here") != text.npos &&
                                        text.find(what) != text.npos;
                             }));
    };
    const OrderedJson absent(OrderedJson::value_t::discarded);
    for (const char* key : {"target", "layers", "target_id", "norm", "tokenizer", "vocab_size",
                            "hidden_size", "dtype"})
        refused(key, absent, key);
    refused("target", "0123456789ABCDEF", "fingerprint");
    refused("target", 7, "target");
    refused("tokenizer", "../../etc/passwd", "checksum");
    refused("layers", OrderedJson::array(), "0 captured layers");
    refused("layers", {1, -1}, "layer -1");
    refused("layers", {1e30}, "layers");
    refused("layers", std::vector<int>(33, 1), "33 captured layers");
    refused("vocab_size", 0, "size");
    refused("hidden_size", 1e18, "size");
    refused("dtype", "bfloat17", "bfloat17");
    refused("precision", "int64", "int64");
    refused("precision", 7, "precision");
    refused("target_id", std::string(5000, 'x'), "5000 bytes");
    CHECK_THROWS_AS(convention_from_json(OrderedJson::array(), "x"), DataError);
}

TEST_CASE("refs of one manifest share a convention; those that say nothing are counted") {
    CommonConvention common;
    auto renamed = convention();
    renamed.target_id = "other name";
    common(ref("a", std::nullopt));
    common(ref("b", convention()));
    common(ref("c", renamed));
    common(ref("d", convention()));
    CHECK(common.said() == convention());
    CHECK(common.silent() == 1);
    auto other = convention();
    other.layers = {0, 5, 8};
    CHECK_THROWS_WITH(common(ref("e", other)),
                      Contains("sample 'e'") && Contains("layers: [1,5,8] and [0,5,8]"));
    auto broken = ref("f", convention());
    broken.metadata[convention_key]["layers"] = "all";
    CHECK_THROWS_WITH(common(broken), Contains("sample 'f': metadata.capture"));
}

TEST_CASE("capture.json of the first versions says nothing; a damaged one is an error") {
    const test::Scratch dir;
    CHECK_FALSE(captured_convention(dir.path()).has_value());
    write_text_file(capture_file(dir.path()),
                    R"({"target": "0123456789abcdef", "layers": [1, 5, 8]})");
    CHECK_FALSE(captured_convention(dir.path()).has_value());
    write_text_file(capture_file(dir.path()), convention_to_json(convention()).dump());
    CHECK(captured_convention(dir.path()) == convention());
    write_text_file(capture_file(dir.path()), "{\"norm\": \"final_norm\"}");
    CHECK_THROWS_AS(captured_convention(dir.path()), DataError);
    write_text_file(capture_file(dir.path()), "{\"norm\": ");
    CHECK_THROWS_AS(captured_convention(dir.path()), DataError);
}
