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

struct Fixture : TinyJob {
    Fixture() {
        const TinyLlama llama(true, 1, packable);
        llama.write(path("model"), DType::BF16);
        auto draft = llama.config();
        draft["num_hidden_layers"] = 1;
        draft["draft_vocab_size"] = 32;
        draft["tie_word_embeddings"] = false;
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
