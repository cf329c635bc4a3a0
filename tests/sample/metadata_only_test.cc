#include "eyas/sample/metadata_only.hpp"

#include <catch2/catch.hpp>
#include <limits>

#include "eyas/core/tensor.hpp"
#include "eyas/sample/manifest.hpp"

using namespace eyas;

namespace {

struct Holds {
    struct OwnedTensor {
        std::string id;
        Tensor tensor;
    };
    struct View {
        std::string id;
        TensorView tensor;
    };
    struct Numbers {
        std::string id;
        std::vector<float> values;
    };
    struct Pointer {
        const std::byte* data;
    };
    struct Nested {
        std::string id;
        std::vector<std::optional<Numbers>> inner;
    };
    struct Fine {
        std::string id;
        Shape shape;
        std::vector<std::pair<std::string, std::int64_t>> pairs;
        OrderedJson extra;
    };
};
static_assert(!MetadataOnly<Holds::OwnedTensor>);
static_assert(!MetadataOnly<Holds::View>);
static_assert(!MetadataOnly<Holds::Numbers>);
static_assert(!MetadataOnly<Holds::Pointer>);
static_assert(!MetadataOnly<Holds::Nested>);
static_assert(MetadataOnly<Holds::Fine>);
static_assert(detail::member_count<SampleRef>() == 14);  // every field of the schema is looked at
static_assert(detail::member_count<FeatureSpec>() == 7);

}  // namespace

TEST_CASE("metadata of scalars, strings and short lists is accepted") {
    CHECK_NOTHROW(check_metadata(
        OrderedJson::parse(
            R"({"a": 1, "b": 2.5, "c": null, "d": "x", "e": [1, 2, 3], "f": {"g": true}})"),
        "here"));
}

TEST_CASE("a payload in metadata is refused and its place is named") {
    OrderedJson m = {{"ttt_length", 7}};
    SECTION("a long list") { m["data"] = std::vector<int>(33, 1); }
    SECTION("a long string") { m["data"] = std::string(4097, 'A'); }
    SECTION("binary") { m["data"] = OrderedJson::binary({1, 2, 3}); }
    SECTION("a described tensor") {
        m["data"] = {{"dtype", "float32"}, {"shape", {2}}, {"values", {1, 2}}};
    }
    SECTION("not a number") { m["data"] = std::numeric_limits<double>::quiet_NaN(); }
    SECTION("infinity inside a list") {
        m["data"] = OrderedJson::array({std::numeric_limits<double>::infinity()});
    }
    SECTION("many keys") {
        for (int i = 0; i < 65; ++i) m["data"]["k" + std::to_string(i)] = i;
    }
    SECTION("deep nesting") {
        OrderedJson inner = 1;
        for (int i = 0; i < 5; ++i) inner = OrderedJson::array({inner});
        m["data"] = inner;
    }
    CHECK_THROWS_AS(check_metadata(m, "here"), DataError);
    CHECK_THROWS_WITH(check_metadata(m, "here"), Catch::Matchers::StartsWith("here.data"));
}
