#include <catch2/catch.hpp>
#include <cmath>

#include "eyas/checkpoint/directory.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/format/safetensors.hpp"
#include "tests/programs/tiny_job.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::TinyJob;

TEST_CASE("the main job: both placements of the features end with the same bits") {
    const TinyJob job;
    job.capture();
    job.run(job.ingest());
    const std::vector<std::string> steps{"--epochs", "2", "--max-steps", "24"};
    job.run(job.train("a", job.disaggregated(), steps));
    job.run(job.train("b", job.colocated(), steps));
    const auto same = job.run({"compare", job.path("a"), job.path("b"), "--json"});
    const auto result = Json::parse(same->last_line());
    CHECK(result["identical"] == true);
    CHECK(result["tensors"] > 20);  // weights, their masters and both moments

    job.run({"eval", "--target", job.path("target"), "--draft-config", job.path("draft.json"),
             "--vocab-map", job.path("map.safetensors"), "--checkpoint", job.path("a"), "--store",
             "file:" + job.path("features")});
    job.run({"export", "--checkpoint", job.path("a"), "--out", job.path("export")});
    for (const char* what :
         {"export", "store", "manifest.json", "map.safetensors", "a", "target"}) {
        INFO(what);
        const auto p = job.run({"inspect", job.path(what), "--json"});
        CHECK(Json::parse(p->last_line())["ok"] == true);
    }
}

TEST_CASE("compare tells differing weights by exit code and names them") {
    const TinyJob job;
    job.capture();
    job.run(job.train("a", job.colocated(), {"--max-steps", "3"}));
    job.run(job.train("b", job.colocated(), {"--max-steps", "3", "--seed", "1"}));
    const auto p = job.run({"compare", job.path("a"), job.path("b")}, 1);
    CHECK_THAT(p->output(), Contains("fc.weight: values differ"));
}

namespace {
/// A tensor of a file in float32.
std::vector<float> values(const std::string& file, const std::string& name) {
    const SafetensorsFile f(file);
    const auto t = f.at(name);
    Tensor wide(DType::F32, t.shape);
    convert_into(t, wide.mutable_view());
    const auto all = wide.as<float>();
    return {all.begin(), all.end()};
}
}  // namespace

TEST_CASE("--init starts from the weights of a checkpoint, a run or an exported draft") {
    const TinyJob job;
    job.capture();
    job.run(job.train("a", job.colocated(), {"--max-steps", "3"}));
    job.run({"export", "--checkpoint", job.path("a"), "--out", job.path("export")});
    const std::map<std::string, std::string> sources{
        {"a", "a/checkpoint-3"}, {"a/checkpoint-3", "a/checkpoint-3"}, {"export", "export"}};
    int n = 0;
    for (const auto& [from, weights] : sources) {
        const auto out = "b" + std::to_string(n++);
        job.run(job.train(out, job.colocated(),
                          {"--max-steps", "1", "--seed", "1", "--init", job.path(from)}));
        // The first step of AdamW moves a weight by at most rate * (1 + decay * weight), here 1e-3
        // * 1.01 with the weights below 1.01; other initial weights would be 1e-2 away.
        for (const char* name : {"fc.weight", "lm_head.weight", "norm.weight"}) {
            const auto was = values(job.path(weights + "/model.safetensors"), name),
                       is = values(job.path(out + "/checkpoint-1/model.safetensors"), name);
            REQUIRE(is.size() == was.size());
            for (std::size_t i = 0; i < is.size(); ++i) CHECK(std::abs(is[i] - was[i]) <= 1.02e-3f);
        }
    }
    const auto p = job.run(job.train("c", job.colocated(), {"--init", job.path("features")}), 1);
    CHECK_THAT(p->errors(), Contains("features") && Contains("checkpoint"));
}

TEST_CASE("--keep-best keeps the checkpoint with the best held-out figure, also over a resume") {
    const TinyJob job;
    job.capture();
    const std::vector<std::string> more{"--eval-features", job.path("features"), "--eval-interval",
                                        "2", "--keep-best"};
    auto six = more, twelve = more;
    six.insert(six.end(), {"--max-steps", "6", "--total-steps", "12"});
    twelve.insert(twelve.end(), {"--max-steps", "12", "--total-steps", "12", "--json"});
    job.run(job.train("a", job.colocated(), six));
    const auto before = Json::parse(read_text_file(job.path("a/best/best.json")));
    CHECK(before["step"].get<int>() <= 6);
    const auto p = job.run(job.train("a", job.colocated(), twelve));
    const auto result = Json::parse(p->last_line());
    double best = before["acceptance_length"];
    std::int64_t step = before["step"];
    for (const auto& point : result["curve"])
        if (point["acceptance_length"] > best) {
            best = point["acceptance_length"];
            step = point["step"];
        }
    const auto after = Json::parse(read_text_file(job.path("a/best/best.json")));
    CHECK(after["step"] == step);
    CHECK(after["acceptance_length"] == best);
    const auto kept = "a/best/checkpoint-" + std::to_string(step);
    job.run({"eval", "--target", job.path("target"), "--checkpoint", job.path("a/best"), "--store",
             "file:" + job.path("features")});
    CHECK(std::filesystem::exists(job.path(kept + "/model.safetensors")));
}

TEST_CASE("--keep-best does not believe a record that is not of the checkpoint beside it") {
    const TinyJob job;
    job.capture();
    const std::vector<std::string> more{"--eval-features",
                                        job.path("features"),
                                        "--eval-interval",
                                        "2",
                                        "--keep-best",
                                        "--total-steps",
                                        "8"};
    auto four = more, eight = more;
    four.insert(four.end(), {"--max-steps", "4"});
    eight.insert(eight.end(), {"--max-steps", "8"});
    job.run(job.train("a", job.colocated(), four));
    // As a run leaves it that is killed between the two; and a checkpoint of a later step.
    write_text_file(job.path("a/best/best.json"), R"({"step": 2000, "acceptance_length": 1e9})");
    std::filesystem::copy(job.path("a/checkpoint-4"), job.path("a/best/checkpoint-1000"),
                          std::filesystem::copy_options::recursive);
    job.run(job.train("a", job.colocated(), eight));
    const auto after = Json::parse(read_text_file(job.path("a/best/best.json")));
    CHECK(after["step"] <= 8);
    CHECK(checkpoint_directories(job.path("a/best")) ==
          std::vector<std::filesystem::path>{
              job.path("a/best/checkpoint-" + std::to_string(after["step"].get<int>()))});
}

TEST_CASE("help teaches, wrong usage ends with 2") {
    const TinyJob job;
    const auto help = job.run({"--help"});
    CHECK_THAT(help->output(), Contains("disagg:DIR?store_id=NAME") && Contains("vocab-map"));
    CHECK_THAT(job.run({"train", "--help"})->output(), Contains("--ttt-length"));
    job.run({}, 2);
    job.run({"no-such-command"}, 2);
    CHECK_THAT(job.run({"ingest", "--features", "x"}, 2)->errors(), Contains("--store"));
    CHECK_THAT(job.run({"compare", "a", "b", "--no-such-option"}, 2)->errors(),
               Contains("--no-such-option"));
}

TEST_CASE("--pack-tokens packs samples; the padding is told, also without it") {
    const TinyJob job;
    job.capture();
    // Twelve samples of 24 tokens: rows of 120, 120 and 48, or one sample each.
    const std::vector<std::string> steps{"--batch-size",   "3", "--keep-last",  "--max-steps", "1",
                                         "--log-interval", "1", "--pack-tokens"};
    for (const auto& [tokens, padding] : {std::pair{"120", 20.0}, {"0", 0.0}}) {
        auto more = steps;
        more.push_back(tokens);
        const auto out = std::string("packed-") + tokens;
        const auto p = job.run(job.train(out, job.colocated(), more));
        CHECK_THAT(p->output(), Contains(padding > 0 ? "padding 20.0 %" : "padding 0.0 %"));
        CHECK((p->output().find("packed into rows of up to 120 tokens") != std::string::npos) ==
              (padding > 0));
        const auto line = Json::parse(read_text_file(job.path(out + "/metrics.jsonl")));
        CHECK(line.at("padding_percent").get<double>() == Approx(padding).margin(1e-9));
        CHECK(std::isfinite(line.at("loss").get<double>()));
    }
}

TEST_CASE("--pad-to-multiple-of makes batches of few lengths") {
    const TinyJob job;
    job.capture();
    const auto out = [&](const char* multiple) {
        const auto p = job.run(job.train(
            std::string("padded-") + multiple, job.colocated(),
            {"--max-steps", "1", "--log-interval", "1", "--pad-to-multiple-of", multiple}));
        return p->output();
    };
    CHECK_THAT(out("32"), Contains("padding 25.0 %"));  // 24 tokens in 32
    CHECK_THAT(out("8"), Contains("padding 0.0 %"));
    CHECK_THAT(
        job.run(job.train("none", job.colocated(), {"--pad-to-multiple-of", "0"}), 2)->errors(),
        Contains("--pad-to-multiple-of"));
}

TEST_CASE("--config: options from a JSON file, and the command line wins") {
    const TinyJob job;
    job.capture();
    Json options{{"target", job.path("target")},
                 {"draft_config", job.path("draft.json")},
                 {"vocab-map", job.path("map.safetensors")},
                 {"ttt_length", 2},
                 {"max-steps", 9},
                 {"store", "file:" + job.path("features")},
                 {"out", job.path("run")}};
    write_text_file(job.path("train.json"), options.dump());
    const auto p =
        job.run({"train", "--config", job.path("train.json"), "--max-steps", "4", "--json"});
    const auto result = Json::parse(p->last_line());
    CHECK(result["step"] == 4);
    CHECK(result["ok"] == true);

    write_text_file(job.path("list.json"), "[1, 2]");
    CHECK_THAT(job.run({"train", "--config", job.path("list.json")}, 2)->errors(),
               Contains("list.json") && Contains("JSON object"));
    options["max-step-count"] = 3;
    write_text_file(job.path("unknown.json"), options.dump());
    CHECK_THAT(job.run({"train", "--config", job.path("unknown.json")}, 2)->errors(),
               Contains("--max-step-count"));
    job.run({"train", "--config", job.path("absent.json")}, 2);
}
