#include "eyas/core/json.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <string>

#include "scratch.hpp"

using namespace eyas;
using Catch::Contains;

TEST_CASE("required returns the value") {
    const Json j{{"n", 3}, {"s", "text"}, {"list", {1, 2}}};
    CHECK(required<int>(j, "n", "f") == 3);
    CHECK(required<std::string>(j, "s", "f") == "text");
    CHECK(required<std::vector<int>>(j, "list", "f") == std::vector{1, 2});
}

TEST_CASE("required names key and place, missing or of another type") {
    const Json j{{"n", 3}, {"s", "text"}, {"none", nullptr}};
    CHECK_THROWS_AS(required<int>(j, "absent", "a.json"), DataError);
    CHECK_THROWS_WITH(required<int>(j, "absent", "a.json"),
                      Catch::StartsWith("a.json: ") && Contains("'absent' is missing"));
    CHECK_THROWS_WITH(required<int>(j, "s", "a.json"), Contains("'s'") && Contains("\"text\""));
    CHECK_THROWS_AS(required<std::string>(j, "n", "a.json"), DataError);
    CHECK_THROWS_AS(required<int>(j, "none", "a.json"), DataError);
}

TEST_CASE("what is not an object has no keys") {
    for (const char* text : {"[]", "3", "null", "\"n\""}) {
        const auto j = parse_json(text, "a.json");
        CHECK_THROWS_AS(required<int>(j, "n", "a.json"), DataError);
        CHECK(optional<int>(j, "n", 7, "a.json") == 7);
    }
}

TEST_CASE("optional falls back for a missing key or null, but not for a wrong type") {
    const Json j{{"n", 3}, {"s", "text"}, {"none", nullptr}};
    CHECK(optional<int>(j, "n", 7, "f") == 3);
    CHECK(optional<int>(j, "absent", 7, "f") == 7);
    CHECK(optional<int>(j, "none", 7, "f") == 7);
    CHECK_THROWS_AS(optional<int>(j, "s", 7, "f"), DataError);
}

TEST_CASE("bad JSON is a DataError with the position") {
    for (const char* text : {"", "{", "{\"a\":}", "{} x", "{'a': 1}", "nul"})
        CHECK_THROWS_AS(parse_json(text, "a.json"), DataError);
    CHECK_THROWS_WITH(parse_json("{\"a\":\n !}", "a.json"),
                      Catch::StartsWith("a.json: ") && Contains("line 2"));
}

TEST_CASE("deep nesting is refused before anything recurses; brackets in strings do not count") {
    const auto nested = [](std::size_t n) { return std::string(n, '[') + std::string(n, ']'); };
    CHECK(parse_json(nested(64), "a.json").is_array());
    for (const std::size_t n : {65u, 3'000'000u})
        CHECK_THROWS_WITH(parse_json(nested(n), "a.json"), Contains("deeper than 64 levels"));
    const auto quoted = R"({"s": "\")" + std::string(100, '[') + "\"}";
    CHECK(parse_json(quoted, "a.json").at("s") == "\"" + std::string(100, '['));
    CHECK(parse_json("[[],[],{},[[]]]", "a.json").size() == 4);
}

TEST_CASE("a file is read, with the order of keys where that was asked for") {
    const test::Scratch scratch;
    const auto path = scratch.path() / "a.json";
    write_text_file(path, R"({"z": 1, "a": 2})");
    CHECK(read_json_file(path).at("a") == 2);
    CHECK(read_json_file<OrderedJson>(path).dump() == R"({"z":1,"a":2})");
    CHECK_THROWS_AS(read_json_file(scratch.path() / "none.json"), DataError);
}

TEST_CASE("numbers that are no integers of the type are refused, not converted") {
    const auto get = [](const char* text) {
        return required<std::int64_t>(parse_json(text, "x"), "n", "x");
    };
    REQUIRE(get(R"({"n": 1e3})") == 1000);
    REQUIRE(get(R"({"n": -7})") == -7);
    for (const char* bad : {R"({"n": 4.8e69})", R"({"n": 1.5})", R"({"n": 18446744073709551615})",
                            R"({"n": -1e300})", R"({"n": "1"})"})
        REQUIRE_THROWS_AS(get(bad), DataError);
    const auto offsets = [](const char* text) {
        return required<std::vector<std::uint64_t>>(parse_json(text, "x"), "n", "x");
    };
    REQUIRE(offsets(R"({"n": [0, 5]})").size() == 2);
    for (const char* bad : {R"({"n": [0, -1]})", R"({"n": [1e40]})", R"({"n": [0.5]})"})
        REQUIRE_THROWS_AS(offsets(bad), DataError);
}
