#include "eyas/core/error.hpp"

#include <catch2/catch.hpp>
#include <concepts>

using namespace eyas;

TEST_CASE("a message reads: where, what, remedy") {
    CHECK_THROWS_WITH(throw DataError("CRC differs", "data_0.ckpt: hidden_state", "Copy it again"),
                      "data_0.ckpt: hidden_state: CRC differs. Copy it again");
}

TEST_CASE("kinds can be told apart, and all of them are caught as Error") {
    STATIC_REQUIRE(std::derived_from<Error, std::runtime_error>);
    STATIC_REQUIRE(std::derived_from<StaleReferenceError, ContractError>);
    STATIC_REQUIRE(std::derived_from<AuthenticationError, ContractError>);
    STATIC_REQUIRE_FALSE(std::derived_from<DataError, ContractError>);
    STATIC_REQUIRE_FALSE(std::derived_from<ResourceError, DataError>);
    CHECK_THROWS_AS(throw ContractError("a", "b", "c"), Error);
    CHECK_THROWS_AS(throw DataError("a", "b", "c"), Error);
    CHECK_THROWS_AS(throw TransportError("a", "b", "c"), Error);
    CHECK_THROWS_AS(throw ResourceError("a", "b", "c"), Error);
}

TEST_CASE("what failed besides stands at the end of the message, and the kind stays") {
    const auto twice = [] {
        try {
            throw StaleReferenceError("is old", "ref", "Ask again");
        } catch (Error& e) {
            e.add("the disk is full");
            throw;
        }
    };
    CHECK_THROWS_AS(twice(), StaleReferenceError);
    CHECK_THROWS_WITH(twice(), "ref: is old. Ask again. Besides, the disk is full");
}
