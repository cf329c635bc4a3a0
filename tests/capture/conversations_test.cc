#include "eyas/capture/conversations.hpp"

#include <catch2/catch.hpp>

#include "tests/capture/tiny_llama.hpp"

using namespace eyas;
using eyas::test::ScratchDirectory;

namespace {

std::vector<Conversation> read(const std::string& text, const ConversationLimits& limits = {}) {
    const ScratchDirectory dir;
    const auto file = dir.path() / "talk.jsonl";
    write_text_file(file, text);
    return read_conversations(file, limits);
}

void refused(const std::string& line, const std::string& words,
             const ConversationLimits& limits = {}) {
    const std::string good = R"({"input_ids": [1], "loss_mask": [1]})";
    const auto text = good + "\n\n" + line + "\n" + good;
    CHECK_THROWS_AS(read(text, limits), DataError);
    CHECK_THROWS_WITH(read(text, limits),
                      Catch::Contains("talk.jsonl line 3") && Catch::Contains(words));
}

}  // namespace

TEST_CASE("conversations keep order, other keys and blank lines are passed over", "[capture]") {
    const auto got = read(
        "{\"input_ids\": [5, 6, 7], \"loss_mask\": [0, 1, 1], \"id\": \"x\"}\r\n"
        "  \n"
        "{\"loss_mask\": [0], \"input_ids\": [9]}");
    REQUIRE(got.size() == 2);
    CHECK(got[0].input_ids == std::vector<std::int64_t>{5, 6, 7});
    CHECK(got[0].loss_mask == std::vector<std::int64_t>{0, 1, 1});
    CHECK(got[1].tokens() == 1);
}

TEST_CASE("max_len cuts ids and mask alike", "[capture]") {
    const std::string line = R"({"input_ids": [5, 6, 7], "loss_mask": [0, 1, 1]})";
    CHECK(read(line, {.max_len = 3})[0].tokens() == 3);
    const auto cut = read(line, {.max_len = 2, .positions = 2})[0];
    CHECK(cut.input_ids == std::vector<std::int64_t>{5, 6});
    CHECK(cut.loss_mask == std::vector<std::int64_t>{0, 1});
    CHECK_THROWS_AS(read(line, {.max_len = 0}), ContractError);
}

TEST_CASE("bad lines are named with file, line and key", "[capture]") {
    refused("{\"input_ids\": [1, 2", "JSON");
    refused("[1, 2]", "input_ids");
    refused(R"({"loss_mask": [1]})", "'input_ids' is missing");
    refused(R"({"input_ids": [1]})", "'loss_mask' is missing");
    refused(R"({"input_ids": "1", "loss_mask": [1]})", "input_ids");
    refused(R"({"input_ids": [1.5], "loss_mask": [1]})", "1.5");
    refused(R"({"input_ids": ["a"], "loss_mask": [1]})", "\"a\"");
    refused(R"({"input_ids": [18446744073709551615], "loss_mask": [1]})", "input_ids holds");
    refused(R"({"input_ids": [], "loss_mask": []})", "empty");
    refused(R"({"input_ids": [1, 2], "loss_mask": [1]})", "2 input_ids but 1 loss_mask");
    refused(R"({"input_ids": [1], "loss_mask": [2]})", "loss_mask holds 2");
    refused(R"({"input_ids": [-3], "loss_mask": [1]})", "input_ids holds -3");
    refused(R"({"input_ids": [50], "loss_mask": [1]})", "0 to 49", {.vocab_size = 50});
    refused(R"({"input_ids": [1, 2, 3], "loss_mask": [1, 1, 1]})", "--max-len", {.positions = 2});
}

TEST_CASE("a file without conversations is refused", "[capture]") {
    CHECK_THROWS_WITH(read(""), Catch::Contains("no conversation"));
    CHECK_THROWS_WITH(read("\n \n"), Catch::Contains("no conversation"));
    CHECK_THROWS_AS(read_conversations("/nonexistent/talk.jsonl"), DataError);
}
