#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/programs/tiny_job.hpp"

// What a program cannot do it says before it reads any weights, and before it writes anything: its
// model lacks a tensor, which is found as soon as weights are read.

using namespace eyas;
using Catch::Contains;
using eyas::test::packable;
using eyas::test::TinyJob;
using eyas::test::TinyLlama;

namespace {

using Words = std::vector<std::string>;

struct Fixture : TinyJob {
    Fixture() {
        TinyLlama broken(true, 1, packable);
        broken.weights.erase("model.layers.3.mlp.up_proj.weight");
        broken.write(path("broken"), DType::BF16);
        write_text_file(path("prompts.jsonl"), R"({"input_ids": [1, 2, 3]})");
        write_text_file(path("talks.jsonl"), R"({"input_ids": [1, 2], "loss_mask": [0, 1]})");
    }

    /// All that lies in the job's directory but what its processes print.
    Words files() const {
        Words all;
        for (const auto& e : std::filesystem::recursive_directory_iterator(path("")))
            if (!e.path().filename().string().starts_with("process-"))
                all.push_back(e.path().string());
        std::ranges::sort(all);
        return all;
    }

    void refused(Words words, const Words& more, const std::string& what, int code = 1) const {
        words.insert(words.end(), more.begin(), more.end());
        const auto before = files();
        CHECK_THAT(run(words, code)->errors(), Contains(what));
        CHECK(files() == before);
    }
};

}  // namespace

TEST_CASE("a rollout says before it begins what it cannot do") {
    const Fixture f;
    const auto sink = GENERATE(0, 1, 2);
    Words words{"rollout",
                "--model",
                f.path("broken"),
                "--prompts",
                f.path("prompts.jsonl"),
                "--out",
                f.path("answers.jsonl")};
    if (sink == 1) words.insert(words.end(), {"--features", f.path("features")});
    if (sink == 2)
        words.insert(words.end(), {"--store", f.store(), "--manifest", f.path("manifest.json")});
    f.refused(words, {"--temperature", "101"}, "temperature is 101");
    f.refused(words, {"--top-p", "1.5"}, "top_p is 1.5");
    f.refused(words, {"--max-new-tokens", "0"}, "max_new_tokens is 0");
    f.refused(words, {"--batch", "0"}, "slots is 0");
    f.refused(words, {"--prefill-tokens", "-1"}, "prefill_tokens is -1");
    f.refused(words, {"--cache-tokens", "2000000000000"}, "cache_tokens is 2000000000000");
    f.refused(words, {"--cache-tokens", "-1"}, "--cache-tokens", 2);
    f.refused(words, {"--max-len", "0"}, "--max-len", 2);
    f.refused(words, {"--stop-ids", "3,64"}, "stop token 64");
    if (sink > 0) f.refused(words, {"--layers", "0,2"}, "2 layers");
    f.refused(words, {}, "up_proj");  // nothing else is wrong
    write_text_file(f.path("prompts.jsonl"), R"({"input_ids": [1, 64]})");
    f.refused(words, {}, "prompts.jsonl line 1");
}

TEST_CASE("a rollout into a store asks first who is to be told of its samples") {
    const Fixture f;
    f.refused({"rollout", "--model", f.path("none"), "--prompts", f.path("none"), "--out",
               f.path("answers.jsonl"), "--store", f.store()},
              {}, "nothing tells the trainers");
}

TEST_CASE("a capture says before it begins what it cannot do") {
    const Fixture f;
    const Words words{
        "capture", "--model",         f.path("broken"), "--conversations", f.path("talks.jsonl"),
        "--out",   f.path("features")};
    f.refused(words, {"--max-len", "0"}, "--max-len", 2);
    f.refused(words, {"--pack-tokens", "0"}, "--pack-tokens", 2);
    f.refused(words, {"--layers", "0,2"}, "2 layers");
    f.refused(words, {"--layers", "0,2,6"}, "no layer 6");
    f.refused(words, {}, "up_proj");  // nothing else is wrong
    const std::vector<int> long_talk(129, 1);
    write_text_file(f.path("talks.jsonl"),
                    Json{{"input_ids", long_talk}, {"loss_mask", long_talk}}.dump());
    f.refused(words, {}, "talks.jsonl line 1: a conversation of 129 tokens");
    f.refused(words, {"--max-len", "128"}, "up_proj");
    write_text_file(f.path("talks.jsonl"), R"({"input_ids": [64], "loss_mask": [1]})");
    f.refused(words, {}, "talks.jsonl line 1: input_ids holds 64");
}

TEST_CASE("an evaluation says before it begins what it cannot do") {
    const Fixture f;
    const Words words{"eval", "--target", f.path("none")};
    f.refused(words, {}, "neither --checkpoint nor --draft-config");
    f.refused(words, {"--checkpoint", f.path("none"), "--eval-draft", "bush:3"}, "bush:3");
    f.refused(words,
              {"--checkpoint", f.path("none"), "--conversations", f.path("talks.jsonl"), "--draft",
               "bush:3"},
              "bush:3");
    f.refused(words, {"--conversations", f.path("talks.jsonl"), "--store", f.store()}, "excludes",
              2);
}
