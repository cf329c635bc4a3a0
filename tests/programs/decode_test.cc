#include <catch2/catch.hpp>

#include "tests/programs/tiny_job.hpp"

// From prompts to a draft that decodes: eyas rollout, train and eval as a user runs them.

using namespace eyas;
using Catch::Contains;
using eyas::test::packable;
using eyas::test::random_ids;
using eyas::test::TinyJob;
using eyas::test::TinyLlama;

namespace {

using Words = std::vector<std::string>;

constexpr std::int64_t positions = 64;  // of the draft; the target has 128

struct Fixture : TinyJob {
    Fixture() {
        const TinyLlama llama(true, 1, packable);
        llama.write(path("model"), DType::BF16);
        auto draft = llama.config();
        draft["num_hidden_layers"] = 1;
        draft["draft_vocab_size"] = 32;
        draft["tie_word_embeddings"] = false;
        draft["max_position_embeddings"] = positions;
        write_text_file(path("small.json"), draft.dump());
        std::string lines;
        for (std::uint32_t i = 0; i < 12; ++i)
            lines += Json{{"input_ids", random_ids(3 + i, packable.vocab, i)}}.dump() + "\n";
        write_text_file(path("prompts.jsonl"), lines);
        run({"rollout", "--model", path("model"), "--prompts", path("prompts.jsonl"),
             "--max-new-tokens", "40", "--layers", "0,2,4", "--out", path("answers.jsonl"),
             "--features", path("states")});
        run({"vocab-map", "--conversations", path("answers.jsonl"), "--vocab-size", "64",
             "--draft-vocab-size", "32", "--out", path("small.safetensors")});
    }
    Words words(const std::string& out, const Words& more) const {
        Words w{"train",
                "--target",
                path("model"),
                "--draft-config",
                path("small.json"),
                "--vocab-map",
                path("small.safetensors"),
                "--store",
                "file:" + path("states"),
                "--ttt-length",
                "2",
                "--eval-features",
                path("states"),
                "--out",
                path(out),
                "--json"};
        w.insert(w.end(), more.begin(), more.end());
        return w;
    }
    Words decode(const std::string& model, const Words& more) const {
        Words w{"eval",      "--target",        path(model),           "--checkpoint",
                path("run"), "--conversations", path("answers.jsonl"), "--max-new-tokens",
                "40",        "--json"};
        w.insert(w.end(), more.begin(), more.end());
        return w;
    }
};

}  // namespace

TEST_CASE("a draft that was trained on answers decodes their prompts as the target would alone") {
    const Fixture f;
    const auto p = f.run(f.words("run", {"--epochs", "5", "--lr", "3e-3", "--eval-interval", "20",
                                         "--eval-draft", "chain:3"}));
    const auto curve = Json::parse(p->last_line())["curve"];
    REQUIRE(curve.size() == 3);
    CHECK(curve[2]["acceptance_length"] > 1.0);
    CHECK(curve[2]["acceptance_length"] >= curve[0]["acceptance_length"]);
    CHECK_THAT(p->output(), Contains("acceptance length"));
    for (const char* shape : {"chain:3", "tree:2,2", "dynamic:3,2,4"}) {
        const auto e = Json::parse(f.run(f.decode("model", {"--draft", shape}))->last_line());
        CHECK(e["equal_texts"] == 12);
        CHECK(e["prompts"] == 12);
        CHECK(e["acceptance_length"] > 1.0);
    }
    const auto rounded = Json::parse(
        f.run(f.decode("model", {"--draft", "tree:2,2", "--target-precision", "bfloat16"}))
            ->last_line());
    CHECK(rounded["target_precision"] == "bfloat16");
    CHECK(rounded["equal_texts"] == 12);
    CHECK(rounded["acceptance_length"] > 1.0);
    const auto sampled = Json::parse(
        f.run(f.decode("model", {"--draft", "chain:3", "--temperature", "1", "--rejection"}))
            ->last_line());
    CHECK(sampled["acceptance_length"] >= 1.0);

    TinyLlama(true, 2, packable).write(f.path("other"), DType::BF16);
    CHECK_THAT(f.run(f.decode("other", {}), 1)->errors(), Contains("captured otherwise"));
    CHECK_THAT(f.run(f.decode("model", {"--layers", "1,2,4"}), 1)->errors(), Contains("layers"));
    CHECK_THAT(f.run(f.decode("model", {"--draft", "bush:3"}), 1)->errors(), Contains("chain:"));
    CHECK_THAT(
        f.run({"eval", "--target", f.path("model"), "--checkpoint", f.path("run")}, 1)->errors(),
        Contains("--conversations"));
}

TEST_CASE("what cannot be decoded is refused before any weights are read") {
    const Fixture f;
    TinyLlama broken(true, 1, packable);  // found when the target is loaded
    broken.weights.erase("model.layers.3.mlp.up_proj.weight");
    broken.write(f.path("broken"), DType::BF16);
    const auto eval = [&](const std::string& target, const Words& more, int code) {
        Words w{"eval",
                "--target",
                f.path(target),
                "--draft-config",
                f.path("small.json"),
                "--vocab-map",
                f.path("small.safetensors"),
                "--layers",
                "0,2,4",
                "--conversations",
                f.path("talks.jsonl"),
                "--max-new-tokens",
                "4"};
        w.insert(w.end(), more.begin(), more.end());
        return f.run(w, code);
    };
    const auto talk = [](std::int64_t prompt, std::int64_t answer) {
        std::vector<int> mask(static_cast<std::size_t>(prompt), 0);
        mask.resize(static_cast<std::size_t>(prompt + answer), 1);
        return Json{{"input_ids", std::vector<int>(mask.size(), 1)}, {"loss_mask", mask}}.dump() +
               "\n";
    };
    const auto refused = [&](const Words& more, const std::string& words) {
        CHECK_THAT(eval("broken", more, 1)->errors(), Contains(words));
    };
    // Options come before all files.
    refused({"--draft", "tree:4,2", "--rejection"}, "rejection sampling of tree:4,2");
    refused({"--temperature", "-1"}, "temperature");
    refused({"--sequences", "5000"}, "5000 sequences");
    // Of a conversation the prompt counts, whatever follows it: it leaves the draft a position.
    const auto fits = talk(3, 200) + talk(positions - 1, 1);
    write_text_file(f.path("talks.jsonl"), fits + talk(positions, 1));
    refused({}, "talks.jsonl line 3: a prompt of 64 tokens");
    refused({"--stop-ids", "3,5000"}, "stop token 5000");
    refused({"--layers", "5"}, "4 layers");  // beside the three
    refused({"--prompts", "2"}, "up_proj");  // that one is not asked for
    write_text_file(f.path("talks.jsonl"), fits);
    CHECK_THAT(eval("model", {}, 0)->output(), Contains("2 prompts"));
    write_text_file(f.path("talks.jsonl"), talk(0, 5));
    refused({}, "no conversation has a prompt");
    write_text_file(f.path("broken/generation_config.json"), R"({"eos_token_id": [1, 64]})");
    refused({}, "broken, eos_token_id: stop token 64");
}

TEST_CASE("--early-stop ends a training that gets no better") {
    const Fixture f;
    const auto p = f.run(f.words(
        "run", {"--epochs", "5", "--lr", "0", "--eval-interval", "2", "--early-stop", "2"}));
    const auto result = Json::parse(p->last_line());
    CHECK(result["ended_early"] == true);
    CHECK(result["stopped"] == false);
    CHECK(result["step"] == 6);  // the first evaluation is better than none, two are not
    CHECK_THAT(p->output(), Contains("no better held-out figure in 2 evaluations"));
}
