#include "eyas/capture/prompts.hpp"

#include <catch2/catch.hpp>

#include "tests/capture/tiny_llama.hpp"

using namespace eyas;
using eyas::test::ScratchDirectory;

namespace {
struct Fixture {
    ScratchDirectory dir;
    std::vector<Prompt> read(const std::string& text) const {
        write_text_file(dir.path() / "p.jsonl", text);
        return read_prompts(dir.path() / "p.jsonl", 50);
    }
    std::vector<std::int64_t> stop_ids(const std::string& config, const std::string& generation) {
        write_text_file(dir.path() / "config.json", config);
        std::filesystem::remove(dir.path() / "generation_config.json");
        if (!generation.empty()) write_text_file(dir.path() / "generation_config.json", generation);
        return default_stop_ids(dir.path());
    }
};
}  // namespace

TEST_CASE("prompts are lines with ids and repeats", "[prompts]") {
    const auto p = Fixture().read(
        "{\"input_ids\": [1, 2]}\n\n"
        "{\"input_ids\": [3], \"id\": \"a\", \"loss_mask\": [1]}\n"
        "{\"input_ids\": [4], \"id\": 17, \"repeat\": 3}\n"
        "{\"input_ids\": [49], \"repeat\": 1}");
    std::vector<std::string> ids;
    for (const auto& x : p) ids.push_back(x.id);
    CHECK(ids == std::vector<std::string>{"0", "a", "17.0", "17.1", "17.2", "3.0"});
    CHECK(p[0].input_ids == std::vector<std::int64_t>{1, 2});
    CHECK(p[4].input_ids == std::vector<std::int64_t>{4});
}

TEST_CASE("bad prompts are refused by line", "[prompts]") {
    const Fixture f;
    CHECK_THROWS_AS(f.read("\n"), DataError);
    for (const std::string bad :
         {"{\"input_ids\": []}", "{\"input_ids\": [50]}", "{\"input_ids\": [-1]}",
          "{\"input_ids\": [1.5]}", "{\"input_ids\": 1}", "{}", "[]", "{",
          "{\"input_ids\": [1], \"id\": [1]}", "{\"input_ids\": [1], \"repeat\": 0}",
          "{\"input_ids\": [1], \"repeat\": -1}", "{\"input_ids\": [1], \"repeat\": \"2\"}",
          "{\"input_ids\": [1], \"repeat\": 100000000}"}) {
        CAPTURE(bad);
        CHECK_THROWS_AS(f.read("{\"input_ids\": [1]}\n" + bad), DataError);
        CHECK_THROWS_WITH(f.read("{\"input_ids\": [1]}\n" + bad), Catch::Contains("line 2"));
    }
}

TEST_CASE("repeats are refused before they fill the memory", "[prompts]") {
    const Fixture f;
    std::string ids = "1";
    for (int i = 1; i < 1 << 13; ++i) ids += ", 1";
    const auto line = [&](std::int64_t repeat) {
        return "{\"input_ids\": [" + ids + "], \"repeat\": " + std::to_string(repeat) + "}\n";
    };
    // 2^28 tokens are 2^15 of these, besides each line's own.
    CHECK_THROWS_AS(f.read(line((1 << 15) + 2)), DataError);
    CHECK_THROWS_WITH(f.read(line(2) + line((1 << 15) + 1)),
                      Catch::Contains("line 2") && Catch::Contains("of 8192 tokens") &&
                          Catch::Contains("at most 268435456 tokens"));
    CHECK(f.read(line(2) + line(1) + line(3)).size() == 6);
}

TEST_CASE("stop tokens come from the model's configs", "[prompts]") {
    using Ids = std::vector<std::int64_t>;
    Fixture f;
    CHECK(f.stop_ids("{\"eos_token_id\": 2}", "") == Ids{2});
    CHECK(f.stop_ids("{\"eos_token_id\": 2}", "{\"eos_token_id\": [3, 4]}") == Ids{3, 4});
    CHECK(f.stop_ids("{\"eos_token_id\": 2}", "{\"eos_token_id\": null}") == Ids{2});
    CHECK(f.stop_ids("{\"eos_token_id\": null}", "{}").empty());
    CHECK_THROWS_AS(f.stop_ids("{\"eos_token_id\": \"</s>\"}", ""), DataError);
    CHECK_THROWS_AS(f.stop_ids("{\"eos_token_id\": [1, 2.5]}", ""), DataError);
}
