#include <catch2/catch.hpp>

#include "eyas/core/json.hpp"
#include "eyas/loader/order.hpp"

using namespace eyas;

TEST_CASE("epoch orders are the reference sampler's") {
    const auto expected = read_json_file("tests/loader/testdata/expected.json");
    const auto& cases = expected.at("sampler_indices");
    REQUIRE(cases.size() > 30);
    for (const auto& c : cases) {
        INFO(c.dump());
        CHECK(epoch_order(c.at("size"), c.at("seed").get<std::uint64_t>(), c.at("epoch"),
                          c.at("dp_rank"),
                          c.at("dp_size")) == c.at("indices").get<std::vector<std::int64_t>>());
    }
}

TEST_CASE("without shuffling the order is the manifest's, wrapped around for the last rank") {
    using Order = std::vector<std::int64_t>;
    CHECK(epoch_order(5, 0, 3, 0, 1, false) == Order{0, 1, 2, 3, 4});
    CHECK(epoch_order(5, 0, 3, 1, 2, false) == Order{1, 3, 0});
    CHECK(epoch_order(1, 0, 0, 2, 3, false) == Order{0});  // more ranks than samples
    CHECK(epoch_order(0, 0, 0).empty());
    CHECK_THROWS_AS(epoch_order(5, 0, 0, 2, 2), ContractError);
    CHECK_THROWS_AS(epoch_order(-1, 0, 0), ContractError);
}
