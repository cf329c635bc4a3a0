#include "eyas/sample/feature_layout.hpp"

#include <catch2/catch.hpp>

using namespace eyas;

namespace {

std::vector<FeatureSpec> good() {
    return {{.name = "input_ids", .shape = Shape{5}, .dtype = DType::I64},
            {.name = "loss_mask", .shape = Shape{5}, .dtype = DType::I64},
            {.name = "hidden_state", .shape = Shape{1, 5, 8}, .dtype = DType::BF16},
            {.name = "aux_hidden_state", .shape = Shape{1, 5, 24}, .dtype = DType::BF16}};
}

}  // namespace

TEST_CASE("the layout of a sample") {
    auto specs = good();
    SECTION("as captured") {}
    SECTION("states without the leading one, features in another order, a further one") {
        specs[2].shape = Shape{5, 8};
        std::swap(specs[0], specs[3]);
        specs.push_back({.name = "position_ids", .shape = Shape{3, 5}, .dtype = DType::I64});
    }
    const auto l = feature_layout(specs, "x");
    CHECK(l.rows == 5);
    CHECK(l.width == 8);
    CHECK(l.aux_width() == 24);
    CHECK(l.dtype == DType::BF16);
}

TEST_CASE("specs that do not form a sample are refused, the feature is named") {
    auto specs = good();
    std::string name;
    SECTION("missing") {
        specs.erase(specs.begin() + 1);
        name = "loss_mask";
    }
    SECTION("token ids of another type") {
        specs[0].dtype = DType::I32;
        name = "input_ids";
    }
    SECTION("several samples in one file") {
        specs[0].shape = Shape{2, 5};
        name = "input_ids";
    }
    SECTION("lengths disagree") {
        specs[1].shape = Shape{4};
        name = "loss_mask";
    }
    SECTION("states of another length") {
        specs[2].shape = Shape{1, 6, 8};
        name = "hidden_state";
    }
    SECTION("not three auxiliary layers") {
        specs[3].shape = Shape{1, 5, 16};
        name = "aux_hidden_state";
    }
    SECTION("states of two types") {
        specs[3].dtype = DType::F32;
        name = "aux_hidden_state";
    }
    SECTION("a type that no model takes") {
        specs[2].dtype = specs[3].dtype = DType::F16;
        name = "hidden_state";
    }
    SECTION("no rows") {
        for (auto& s : specs) s.shape = s.shape.rank() == 1 ? Shape{0} : Shape{1, 0, s.shape[2]};
        name = "no rows";
    }
    CHECK_THROWS_AS(feature_layout(specs, "file"), DataError);
    CHECK_THROWS_WITH(feature_layout(specs, "file"),
                      Catch::Matchers::StartsWith("file") && Catch::Matchers::Contains(name));
}
