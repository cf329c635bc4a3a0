#include <catch2/catch.hpp>
#include <filesystem>

#include "eyas/checkpoint/draft_convention.hpp"
#include "eyas/ingest/scan.hpp"
#include "eyas/sample/manifest.hpp"
#include "tests/programs/tiny_job.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::TinyJob;
using Words = std::vector<std::string>;

namespace {
const char* silent = "samples do not say how they were captured";

/// Features of the same conversations, but of other layers or another target.
void capture(const TinyJob& job, const char* out, const char* target, const char* layers) {
    job.run({"capture", "--model", job.path(target), "--conversations",
             job.path("conversations.jsonl"), "--layers", layers, "--out", job.path(out)});
}

Words from(const TinyJob& job, const char* features) {
    return {"--store", "file:" + job.path(features)};
}

Words eval(const TinyJob& job, const std::string& checkpoint, const char* features) {
    return {"eval",
            "--target",
            job.path("target"),
            "--checkpoint",
            job.path(checkpoint),
            "--store",
            "file:" + job.path(features)};
}

/// As the first versions wrote capture.json.
void forget(const TinyJob& job, const char* features) {
    const auto file = job.path(std::string(features) + "/capture.json");
    const auto j = read_json_file(file);
    write_text_file(file, Json{{"target", j["target"]}, {"layers", j["layers"]}}.dump());
}
}  // namespace

TEST_CASE("what was captured is told on every way to the trainer, and in what it writes") {
    const TinyJob job;
    write_text_file(job.path("target/tokenizer.json"), "{}");
    job.capture();
    const auto convention = captured_convention(job.path("features"));
    REQUIRE(convention.has_value());
    CHECK(convention->layers == std::vector<std::int64_t>{0, 2, 4});
    CHECK(convention->target_id == "target");
    CHECK(convention->tokenizer.size() == 16);
    CHECK(convention->vocab_size == 50);
    auto both = job.ingest();
    both.insert(both.end(), {"--stream", job.path("s.jsonl")});
    job.run(both);
    job.run({"pack", "--store", job.store(), "--manifest", job.path("manifest.json"), "--out",
             job.path("packed")});
    for (const char* manifest : {"manifest.json", "s.jsonl", "packed/manifest.json"})
        for (const auto& ref : read_manifest(job.path(manifest)).refs)
            CHECK(convention_of(ref) == convention);
    const auto p =
        job.run(job.train("a", {"--store", "packed:" + job.path("packed")}, {"--max-steps", "2"}));
    CHECK(p->output().find(silent) == std::string::npos);
    const auto config = read_model_config(job.path("a/checkpoint-2/config.json"));
    CHECK(recorded_convention(config, "x") == convention);
    job.run(job.train("f", {"--store", job.store(), "--manifest", job.path("s.jsonl")},
                      {"--follow", "--max-steps", "2"}));
    CHECK(recorded_convention(read_model_config(job.path("f/checkpoint-2/config.json")), "x") ==
          convention);
}

TEST_CASE("samples that do not say how they were captured are trained on, with a line") {
    const TinyJob job;
    job.capture();
    forget(job, "features");
    CHECK_FALSE(captured_convention(job.path("features")).has_value());
    // The capture goes on, and is still refused to others.
    CHECK_THAT(job.run({"capture", "--model", job.path("target"), "--conversations",
                        job.path("conversations.jsonl"), "--layers", "0,2,4", "--out",
                        job.path("features")})
                   ->output(),
               Contains("12 were there"));
    const auto p = job.run(job.train("a", job.colocated(), {"--max-steps", "2"}));
    CHECK_THAT(p->output(), Contains(silent));
    CHECK_THAT(job.run(eval(job, "a", "features"))->output(), Contains(silent));
    job.run({"export", "--checkpoint", job.path("a"), "--out", job.path("export")});
    CHECK_FALSE(read_json_file(job.path("export/config.json")).contains("eagle_config"));
    CHECK_THAT(job.run({"export", "--checkpoint", job.path("a"), "--out", job.path("export"),
                        "--verify", "--target", job.path("target")})
                   ->output(),
               Contains("does not say"));
}

TEST_CASE("samples captured otherwise than the run says are refused, with the difference") {
    const TinyJob job;
    job.capture();
    test::TinyLlama(true, 7).write(job.path("other"));
    capture(job, "layers", "target", "0,1,4");
    capture(job, "foreign", "other", "0,2,4");
    const Words two{"--max-steps", "2"};
    job.run(job.train("a", job.colocated(), two));
    job.run({"export", "--checkpoint", job.path("a"), "--out", job.path("export")});
    const auto refused = [&](const Words& words, const std::string& what) {
        INFO(what);
        const auto p = job.run(words, 1);
        CHECK_THAT(p->errors(), Contains(what));
        CHECK_FALSE(std::filesystem::exists(job.path("new")));
    };
    // The target of the run.
    refused(job.train("new", from(job, "foreign"), two), "'other': target: ");
    auto other = eval(job, "a", "features");
    other[2] = job.path("other");
    refused(other, "'target': target: ");
    // The layers that the draft's config asks for.
    const auto draft = read_json_file(job.path("draft.json"));
    auto asks = draft;
    asks["eagle_config"] = {{"eagle_aux_hidden_state_layer_ids", {0, 1, 4}}};
    write_text_file(job.path("draft.json"), asks.dump());
    refused(job.train("new", job.colocated(), two),
            "layers: [0,1,4] in the config, [0,2,4] of the samples");
    job.run(job.train("asked", from(job, "layers"), two));
    write_text_file(job.path("draft.json"), draft.dump());
    // What the draft was trained on: to start from, to go on, to be evaluated.
    const std::string layers = "layers: [0,2,4] and [0,1,4]";
    for (const char* source : {"a", "export"}) {
        refused(job.train("new", from(job, "layers"), {"--init", job.path(source)}), layers);
        refused(eval(job, source, "layers"), layers);
    }
    refused(job.train("a", from(job, "layers"), {"--max-steps", "4"}), "run.capture.layers");
    refused(job.train("new", job.colocated(),
                      {"--eval-features", job.path("layers"), "--eval-interval", "1"}),
            "held-out samples were captured otherwise: " + layers);
    // A stream whose samples say so one by one, and a manifest of two captures.
    job.run({"ingest", "--features", job.path("layers"), "--store", job.store(), "--stream",
             job.path("s.jsonl")});
    refused(job.train("new", {"--store", job.store(), "--manifest", job.path("s.jsonl")},
                      {"--follow", "--max-steps", "2", "--init", job.path("a")}),
            layers);
    auto mixed = scan_features(job.path("features"));
    auto more = scan_features(job.path("layers"), {.run_id = "more"});
    mixed.refs.insert(mixed.refs.end(), more.refs.begin(), more.refs.end());
    write_manifest(job.path("mixed.json"), mixed);
    refused(
        job.train("new", {"--store", "file:" + job.path(""), "--manifest", job.path("mixed.json")},
                  two),
        "sample 'more:00000000': was captured otherwise");
}

TEST_CASE("export --verify proves an export, and names what was done to one") {
    const TinyJob job;
    job.capture();
    job.run(job.train("a", job.colocated(), {"--max-steps", "3"}));
    const auto verify = [&](const Words& more, int code = 0, const char* layout = "hf") {
        Words words{"export",   "--checkpoint",     job.path("a"), "--out", job.path("export"),
                    "--target", job.path("target"), "--layout",    layout,  "--verify"};
        words.insert(words.end(), more.begin(), more.end());
        return job.run(words, code);
    };
    // Written where it is not there, on random states.
    const auto p = verify({"--json"});
    CHECK_THAT(p->output(), Contains("logits equal in every bit, on random states"));
    const auto result = Json::parse(p->last_line());
    CHECK(result["checks"].size() == 8);
    CHECK(result["bytes"].get<int>() > 0);
    for (const auto& c : result["checks"]) CHECK(c["good"] == true);
    // On samples, and on prompts: 2 samples of 10 tokens, 2 TTT steps.
    const Words few{"--samples", "2", "--max-len", "10"};
    for (const auto& source : {Words{"--store", "file:" + job.path("features")},
                               Words{"--prompts", job.path("conversations.jsonl")}}) {
        auto words = source;
        words.insert(words.end(), few.begin(), few.end());
        CHECK_THAT(verify(words)->output(), Contains("40 rows of 30 logits"));
    }
    // An export without the embedding is none of the layout hf.
    const auto other = [&](const char* layout, const char* target, const Words& more, int code) {
        Words words{"export",   "--checkpoint", job.path("a"), "--out",          job.path("alone"),
                    "--layout", layout,         "--target",    job.path(target), "--verify"};
        words.insert(words.end(), more.begin(), more.end());
        return job.run(words, code);
    };
    std::filesystem::create_directory(job.path("alone"));  // as good as absent
    other("sglang", "target", {}, 0);
    CHECK_THAT(other("hf", "target", {}, 1)->errors(), Contains("embed_tokens.weight is missing"));
    test::TinyLlama(true, 7).write(job.path("wrong"));
    CHECK_THAT(other("sglang", "wrong", {}, 1)->errors(),
               Contains("is not the target of this checkpoint"));
    CHECK_THAT(other("sglang", "target", {"--store", "file:" + job.path("none")}, 1)->errors(),
               !Contains("is not an export"));
    verify({"--write-logits", job.path("logits.safetensors"), "--samples", "1"});
    const SafetensorsFile logits(job.path("logits.safetensors"));
    CHECK(logits.at("logits.0").shape[2] == 30);

    const auto file = job.path("export/model.safetensors");
    auto bytes = read_text_file(file);
    bytes[bytes.size() - 1000] = static_cast<char>(bytes[bytes.size() - 1000] ^ 1);
    write_text_file(file, bytes);
    const auto bad = verify({}, 1);
    CHECK_THAT(bad->output(), Contains("DIFFERS  weights"));
    CHECK_THAT(bad->errors(), Contains("is not an export of this checkpoint"));
    CHECK_THAT(
        job.run({"export", "--checkpoint", job.path("a"), "--out", job.path("b"), "--verify"}, 1)
            ->errors(),
        Contains("--target is missing"));
}

TEST_CASE("a draft in another program's form is evaluated and started from") {
    const TinyJob job;
    job.capture();
    job.run(job.train("a", job.colocated(), {"--max-steps", "3"}));
    job.run({"export", "--checkpoint", job.path("a"), "--out", job.path("export"), "--layout", "hf",
             "--target", job.path("target")});
    // As vLLM's speculators name things, in a torch file, without t2d.
    const SafetensorsFile exported(job.path("export/model.safetensors"));
    auto tensors = exported.tensors();
    std::erase_if(tensors, [](const NamedTensor& t) { return t.name == "t2d"; });
    for (auto& t : tensors)
        if (t.name.starts_with("midlayer.")) t.name = "layers.0." + t.name.substr(9);
    eyas::create_directories(job.path("public"));
    write_torch_file(job.path("public/pytorch_model.bin"), std::span<const NamedTensor>(tensors));
    std::filesystem::copy(job.path("export/config.json"), job.path("public/config.json"));
    auto words = eval(job, "export", "features");
    words.push_back("--json");
    auto ours = Json::parse(job.run(words)->last_line());
    words[4] = job.path("public");
    auto theirs = Json::parse(job.run(words)->last_line());
    ours.erase("checkpoint"), theirs.erase("checkpoint");
    CHECK(ours == theirs);
    const Words one{"--max-steps", "1", "--init"};
    for (const char* source : {"export", "public"}) {
        auto more = one;
        more.push_back(job.path(source));
        job.run(job.train(std::string("from-") + source, job.colocated(), more));
    }
    CHECK_THAT(job.run({"compare", job.path("from-export"), job.path("from-public")})->output(),
               Contains("identical"));
    // An embedding of its own is not what is computed with here.
    for (auto& t : tensors)
        if (t.name == "embed_tokens.weight") t.tensor.data += 2;
    write_torch_file(job.path("public/pytorch_model.bin"), std::span<const NamedTensor>(tensors));
    words.pop_back();
    CHECK_THAT(job.run(words, 1)->errors(), Contains("the embedding is not the target's"));
}
