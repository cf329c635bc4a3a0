#include <catch2/catch.hpp>
#include <filesystem>
#include <sstream>

#include "eyas/ingest/scan.hpp"
#include "eyas/sample/manifest.hpp"
#include "eyas/sample/stream_writer.hpp"
#include "tests/programs/tiny_job.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::TinyJob;

namespace {
// Long enough to be interrupted: 12 samples an epoch.
const std::vector<std::string> long_run{"--epochs",       "50", "--max-steps",     "600",
                                        "--log-interval", "10", "--save-interval", "25",
                                        "--keep",         "2"};

void check_same(const TinyJob& job, const std::string& a, const std::string& b) {
    CHECK_THAT(job.run({"compare", job.path(a), job.path(b)})->output(), Contains("identical"));
}

std::string first_feature_file(const TinyJob& job) {
    return feature_files(job.path("features")).at(0).string();
}

void cut_in_half(const std::string& file) {
    std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
}
}  // namespace

TEST_CASE("Ctrl-C leaves a checkpoint, and the run goes on to the same weights") {
    const TinyJob job;
    job.capture();
    job.run(job.train("whole", job.colocated(), long_run));
    auto p = job.start(job.train("stopped", job.colocated(), long_run));
    p->await("step 10/");
    p->signal(SIGINT);
    CHECK(p->wait() == 1);
    CHECK_THAT(p->output(), Contains("stopped (run it again to go on)"));
    const auto again = job.run(job.train("stopped", job.colocated(), long_run));
    CHECK_THAT(again->output(), Contains("resumed from"));
    check_same(job, "whole", "stopped");
}

TEST_CASE("kill -9 while training from a shared store, then resume: the same weights") {
    const TinyJob job;
    job.capture();
    job.run(job.ingest());
    job.run(job.train("whole", job.colocated(), long_run));
    for (const char* line : {"step 30/", "step 120/", "step 280/"}) {
        auto p = job.start(job.train("killed", job.disaggregated(), long_run));
        p->await(line);
        p->signal(SIGKILL);
        REQUIRE(p->wait() == -SIGKILL);
    }
    job.run(job.train("killed", job.disaggregated(), long_run));
    check_same(job, "whole", "killed");
}

TEST_CASE("ingest names a damaged file, marks the failure, and --skip-bad leaves it out") {
    const TinyJob job;
    job.capture();
    const auto bad = first_feature_file(job);
    cut_in_half(bad);
    CHECK_THAT(job.run(job.ingest(), 1)->errors(), Contains(bad));
    CHECK(std::filesystem::exists(job.path("manifest.json.failed")));
    CHECK_FALSE(std::filesystem::exists(job.path("manifest.json")));
    // A trainer that waits is told, and does not sit out its time.
    auto wait = job.disaggregated();
    wait.insert(wait.end(), {"--wait", "600"});
    CHECK_THAT(job.run(job.train("a", wait), 1)->errors(),
               Contains("the producer failed") && Contains(bad));

    auto skip = job.ingest();
    skip.insert(skip.end(), {"--skip-bad", "--json"});
    const auto p = job.run(skip);
    CHECK_THAT(p->output(), Contains("left out: ") && Contains("1 bad files"));
    const auto result = Json::parse(p->last_line());
    CHECK(result["samples"] == 11);
    CHECK(result["bad"][0]["file"] == bad);
    CHECK(read_manifest(job.path("manifest.json")).refs.size() == 11);
    job.run(job.train("a", job.disaggregated(), {"--max-steps", "2"}));
}

TEST_CASE("a capture that begins takes the end of an earlier one away at once") {
    const TinyJob job;
    job.capture();
    CHECK(std::filesystem::exists(job.path("features/CAPTURE.done")));
    job.run({"capture", "--model", job.path("none"), "--conversations",
             job.path("conversations.jsonl"), "--out", job.path("features")},
            1);
    CHECK_FALSE(std::filesystem::exists(job.path("features/CAPTURE.done")));
}

TEST_CASE("a second producer of a stream leaves the first one's manifest alone") {
    const TinyJob job;
    job.capture();
    auto producer = job.ingest();
    producer.insert(producer.end(), {"--stream", job.path("s.jsonl")});
    job.run(producer);
    {
        const ManifestStreamWriter held(job.path("s.jsonl"));
        CHECK_THAT(job.run(producer, 1)->errors(), Contains("another producer"));
    }
    CHECK(read_manifest(job.path("manifest.json")).refs.size() == 12);
    CHECK(std::filesystem::exists(job.path("manifest.json.done")));
    CHECK_FALSE(std::filesystem::exists(job.path("manifest.json.failed")));
    // Nor does one that has nothing to say of an ended stream.
    std::filesystem::copy(first_feature_file(job), job.path("features/z.ckpt"));
    CHECK_THAT(job.run(producer, 1)->errors(), Contains("1 feature files are not in it"));
    CHECK(std::filesystem::exists(job.path("manifest.json.done")));
}

TEST_CASE("metrics are whole: no step twice after a resume, a full disk is told") {
    const TinyJob job;
    job.capture();
    const auto file = job.path("run/metrics.jsonl");
    const std::vector<std::string> every{"--max-steps",     "12", "--log-interval", "1",
                                         "--save-interval", "5"};
    job.run(job.train("run", job.colocated(), every));
    const auto whole = read_text_file(file);
    for (const char* later : {"run/checkpoint-12", "run/checkpoint-10"})
        std::filesystem::remove_all(job.path(later));
    write_text_file(file, "of somebody else\n" + whole +
                              "{\"held_out\":{\"step\":7}}\n{\"held_out\":{\"step\":4}}\n{\"st");
    job.run(job.train("run", job.colocated(), every));
    std::vector<std::int64_t> steps;
    std::istringstream lines(read_text_file(file));
    std::string line;
    std::getline(lines, line);
    CHECK(line == "of somebody else");
    while (std::getline(lines, line))
        if (const auto j = Json::parse(line); j.contains("held_out"))
            CHECK(j["held_out"]["step"] == 4);
        else
            steps.push_back(j["step"]);
    CHECK(steps == std::vector<std::int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});

    std::filesystem::create_directories(job.path("full"));
    std::filesystem::create_symlink("/dev/full", job.path("full/metrics.jsonl"));
    CHECK_THAT(job.run(job.train("full", job.colocated(), every), 1)->errors(),
               Contains("metrics.jsonl") && Contains("cannot write"));
}

TEST_CASE("held-out samples that cannot be read are told before training starts") {
    const TinyJob job;
    job.capture();
    const auto refused = [&](const std::vector<std::string>& more, int code, const char* what) {
        const auto p = job.run(job.train("run", job.colocated(), more), code);
        CHECK_THAT(p->errors(), Contains(what));
        CHECK_FALSE(std::filesystem::exists(job.path("run/metrics.jsonl")));
        CHECK_FALSE(std::filesystem::exists(job.path("run/checkpoint-12")));
    };
    refused({"--eval-features", job.path("none"), "--eval-interval", "100"}, 1, "none");
    refused({"--eval-features", job.path("features")}, 2, "--eval-interval");
    refused({"--eval-interval", "3"}, 2, "--eval-features");

    // Samples that are longer than those of the training need no larger --ring-bytes.
    const std::vector<int> mask(100, 1);
    write_text_file(
        job.path("long.jsonl"),
        Json{{"input_ids", test::random_ids(100, 30, 1)}, {"loss_mask", mask}}.dump() + "\n");
    job.run({"capture", "--model", job.path("target"), "--conversations", job.path("long.jsonl"),
             "--layers", "0,2,4", "--out", job.path("long")});
    job.run(job.train("run", job.colocated(),
                      {"--max-steps", "2", "--eval-features", job.path("long"), "--eval-interval",
                       "1", "--ring-bytes", "40000"}));
}

TEST_CASE("a training that cannot start says why and writes no checkpoint") {
    const TinyJob job;
    job.capture();
    job.run(job.ingest(), 0, {{"DISAGG_AUTH_TOKEN", "secret"}});
    const std::map<std::string, std::string> token{{"DISAGG_AUTH_TOKEN", "secret"}};
    const auto refused = [&](const std::vector<std::string>& arguments, const std::string& what,
                             const std::map<std::string, std::string>& environment) {
        INFO(what);
        auto words = arguments;
        words.push_back("--json");
        const auto p = job.run(words, 1, environment);
        CHECK_THAT(p->errors(), Contains(what));
        const auto result = Json::parse(p->last_line());
        CHECK(result["ok"] == false);
        CHECK_THAT(result["error"].get<std::string>(), Contains(what));
        CHECK_FALSE(std::filesystem::exists(job.path("run/checkpoint-1")));
    };
    const auto train = [&](std::vector<std::string> source) {
        return job.train("run", source, {"--max-steps", "1"});
    };

    refused(train(job.disaggregated()), "token", {});
    refused(train(job.disaggregated()), "token", {{"DISAGG_AUTH_TOKEN", "guess"}});
    refused(train({"--store", "disagg:" + job.path("store") + "?store_id=other", "--manifest",
                   job.path("manifest.json")}),
            "other", token);
    refused(train({"--store", "nfs:" + job.path("store"), "--manifest", job.path("manifest.json")}),
            "nfs", token);

    auto manifest = Json::parse(read_text_file(job.path("manifest.json")));
    manifest["schema_version"] = 99;
    write_text_file(job.path("future.json"), manifest.dump());
    refused(train({"--store", job.store(), "--manifest", job.path("future.json")}), "future.json",
            token);

    auto draft = Json::parse(read_text_file(job.path("draft.json")));
    const auto good_draft = draft.dump();
    draft["hidden_size"] = 40;
    write_text_file(job.path("draft.json"), draft.dump());
    refused(train(job.disaggregated()), "40", token);
    write_text_file(job.path("draft.json"), good_draft);

    job.run({"vocab-map", "--features", job.path("features"), "--vocab-size", "50",
             "--draft-vocab-size", "20", "--out", job.path("map.safetensors")});
    refused(train(job.disaggregated()), "map.safetensors", token);
}
