#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "eyas/ingest/scan.hpp"
#include "eyas/sample/manifest.hpp"
#include "tests/programs/tiny_job.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::TinyJob;

namespace {

/// A captured job whose feature files appear one by one, as if they were captured meanwhile.
struct SlowCapture {
    TinyJob job = {};
    std::vector<std::filesystem::path> files = {};
    std::size_t shown = 0;

    explicit SlowCapture(std::uint32_t samples = 12) {
        std::string lines;
        for (std::uint32_t i = 0; i < samples; ++i)
            lines += Json{{"input_ids", test::random_ids(24, 30, i)},
                          {"loss_mask", std::vector<int>(24, 1)}}
                         .dump() +
                     "\n";
        write_text_file(job.path("conversations.jsonl"), lines);
        job.capture();
        files = feature_files(job.path("features"));
    }
    /// The next n files, by rename, in the order in which one look at all of them would find them.
    void show(std::size_t n = 1) {
        const std::filesystem::path to = job.path("live");
        std::filesystem::create_directories(to);
        for (std::size_t i = 0; i < n; ++i, ++shown) {
            std::filesystem::copy(files.at(shown), to / "part");
            std::filesystem::rename(to / "part", to / files[shown].filename());
        }
    }
    void done() const { write_text_file(job.path("live/CAPTURE.done"), "done\n"); }

    std::vector<std::string> producer() const {
        return {"ingest",    "--features", job.path("live"),    "--store",
                job.store(), "--stream",   job.path("s.jsonl"), "--watch"};
    }
    std::vector<std::string> trainer(const std::string& out,
                                     const std::vector<std::string>& more = {}) const {
        std::vector<std::string> words{"--follow", "--total-steps",   "12", "--log-interval",
                                       "1",        "--save-interval", "1",  "--json"};
        words.insert(words.end(), more.begin(), more.end());
        return job.train(out, {"--store", job.store(), "--manifest", job.path("s.jsonl")}, words);
    }
    /// The same samples in the same order as a finished manifest, uninterrupted, from a store of
    /// its own that keeps them.
    void reference(const std::vector<std::string>& more = {"--total-steps", "12"}) const {
        const auto store = "disagg:" + job.path("kept") + "?store_id=kept";
        job.run({"ingest", "--features", job.path("features"), "--store", store, "--stream",
                 job.path("kept.jsonl")});
        auto words = more;
        words.push_back("--no-shuffle");
        job.run(job.train("reference", {"--store", store, "--manifest", job.path("kept.jsonl")},
                          words));
    }
    std::size_t objects() const {
        std::size_t n = 0;
        for (const auto& e : std::filesystem::recursive_directory_iterator(job.path("store")))
            n += e.path().extension() == ".safetensors";
        return n;
    }
    void check_same(const std::string& out) const {
        CHECK_THAT(job.run({"compare", job.path("reference"), job.path(out)})->output(),
                   Contains("identical"));
    }
};

std::string step(std::size_t n) { return "step " + std::to_string(n) + "/"; }

/// Ends with 0; all that it said where it does not.
Json finish(test::Process& p) {
    const int code = p.wait();
    INFO(p.output() << p.errors());
    REQUIRE(code == 0);
    return Json::parse(p.last_line());
}

void kill(test::Process& p) {
    p.signal(SIGKILL);
    REQUIRE(p.wait() == -SIGKILL);
}
}  // namespace

TEST_CASE("training follows an ingest that follows a capture, whoever starts first") {
    SlowCapture c;
    const auto& job = c.job;
    const auto trainer = job.start(c.trainer("run"));
    const auto producer = job.start({"ingest", "--features", job.path("again"), "--store",
                                     job.store(), "--stream", job.path("s.jsonl"), "--manifest",
                                     job.path("manifest.json"), "--watch", "--json"});
    job.run({"capture", "--model", job.path("target"), "--conversations",
             job.path("conversations.jsonl"), "--layers", "0,2,4", "--pack-tokens", "24", "--out",
             job.path("again")});
    const auto made = finish(*producer);
    CHECK(made["samples"] == 12);
    const auto result = finish(*trainer);
    CHECK(result["step"] == 12);
    CHECK(result["stopped"] == false);
    CHECK(result["ledger"]["acknowledged"] == 12);
    CHECK(result["ledger"]["freed"] == 0);
    // The manifest that the stream has become, in its order, trained at once.
    job.run(job.train("reference", {"--store", job.store(), "--manifest", job.path("s.jsonl")},
                      {"--no-shuffle", "--total-steps", "12"}));
    c.check_same("run");
    CHECK(read_manifest(job.path("manifest.json")) == read_manifest(job.path("s.jsonl")));

    const auto inspected = [&](const std::string& what) {
        return Json::parse(job.run({"inspect", job.path(what), "--json"})->last_line());
    };
    CHECK(inspected("s.jsonl")["kind"] == "manifest stream, finished");
    CHECK(inspected("run/ledger.sqlite")["acknowledged"] == 12);
    // Both ends again: nothing is left to do.
    CHECK(Json::parse(job.run({"ingest", "--features", job.path("again"), "--store", job.store(),
                               "--stream", job.path("s.jsonl"), "--json"})
                          ->last_line())["added"] == 0);
    CHECK(Json::parse(job.run(c.trainer("run"))->last_line())["steps"] == 0);
}

TEST_CASE("kill -9 of producer and trainer at several moments: the same bits, an empty store") {
    SlowCapture c;
    const auto& job = c.job;
    c.reference();
    auto producer = job.start(c.producer());
    auto trainer = job.start(c.trainer("run", {"--consume-once"}));
    c.show();
    trainer->await(step(1));
    // The producer dies between files, in the middle of them, and with half a line written.
    for (const int pause : {0, 3, 10}) {
        c.show(2);
        std::this_thread::sleep_for(std::chrono::milliseconds(pause));
        kill(*producer);
        if (pause == 3)
            std::ofstream(job.path("s.jsonl"), std::ios::app) << R"({"sample_id": "disagg:000)";
        producer = job.start(c.producer());
        producer->await("samples are there");
    }
    trainer->await(step(7));
    kill(*trainer);
    c.show(2);
    trainer = job.start(c.trainer("run", {"--consume-once"}));
    trainer->await(step(8));
    kill(*trainer);
    trainer = job.start(c.trainer("run", {"--consume-once"}));
    c.show(3);
    c.done();
    CHECK(producer->wait() == 0);
    const auto result = finish(*trainer);
    CHECK(result["step"] == 12);
    CHECK(result["ledger"]["acknowledged"] == 12);
    CHECK(result["ledger"]["freed"] == 12);
    c.check_same("run");
    CHECK(c.objects() == 0);
}

TEST_CASE("a consume-once training that is killed is resumed to the same bits") {
    SlowCapture c(40);
    const auto& job = c.job;
    c.reference({"--epochs", "2"});
    c.show(40);
    job.run({"ingest", "--features", job.path("live"), "--store", job.store(), "--manifest",
             job.path("manifest.json")});
    const auto words = job.train("run", job.disaggregated(),
                                 {"--consume-once", "--no-shuffle", "--epochs", "2",
                                  "--log-interval", "1", "--save-interval", "7", "--json"});
    for (const std::size_t at : {15u, 52u, 65u}) {
        const auto p = job.start(words);
        p->await(step(at));
        kill(*p);
        if (at == 15) CHECK(c.objects() == 40);  // the second epoch wants them all
    }
    CHECK(c.objects() < 40);
    const auto p = job.start(words);
    const auto result = finish(*p);
    CHECK_THAT(p->output(), Contains("resumed from"));
    CHECK(result["ledger"]["freed"] == 40);
    c.check_same("run");
    CHECK(c.objects() == 0);
}

TEST_CASE("a producer that fails is told after a checkpoint, and both go on when it is repaired") {
    SlowCapture c;
    const auto& job = c.job;
    c.reference();
    c.show(5);
    const auto bad = job.path("live/" + c.files[5].filename().string());
    write_text_file(bad, "this is no torch file");
    const auto failed = job.run(c.producer(), 1);
    CHECK_THAT(failed->errors(), Contains(bad));
    const auto trainer = job.run(c.trainer("run"), 1);
    CHECK_THAT(trainer->errors(), Contains("the producer failed") && Contains(bad));
    CHECK(std::filesystem::exists(job.path("run/checkpoint-5")));

    c.show(7);
    c.done();
    job.run(c.producer());
    CHECK(Json::parse(job.run(c.trainer("run"))->last_line())["steps"] == 7);
    c.check_same("run");
}

TEST_CASE("waiting for samples ends with Ctrl-C or after --wait, and leaves a checkpoint") {
    SlowCapture c;
    const auto& job = c.job;
    c.reference();
    const auto no_stream = job.run(c.trainer("none", {"--wait", "1"}), 1);
    CHECK_THAT(no_stream->errors(), Contains("no stream began within 1 s"));

    const auto producer = job.start(c.producer());
    c.show(3);
    // Saves at its end only.
    auto words = c.trainer("run");
    *std::ranges::find(words, "--save-interval") = "--keep";
    const auto trainer = job.start(words);
    trainer->await(step(3));
    trainer->signal(SIGINT);
    CHECK(trainer->wait() == 1);
    CHECK_THAT(trainer->output(), Contains("stopped (run it again to go on) at step 3"));
    CHECK(std::filesystem::exists(job.path("run/checkpoint-3")));

    c.show(2);
    words.insert(words.end(), {"--wait", "1"});
    const auto silent = job.run(words, 1);
    CHECK_THAT(silent->errors(), Contains("no new sample came within 1 s") &&
                                     Contains("the producer (eyas ingest on "));
    CHECK(std::filesystem::exists(job.path("run/checkpoint-5")));

    producer->signal(SIGINT);  // it goes on, too
    CHECK(producer->wait() == 1);
    CHECK_THAT(producer->output(), Contains("stopped (run it again to go on)"));
    c.show(7);
    c.done();
    job.run(c.producer());
    CHECK(Json::parse(job.run(words)->last_line())["step"] == 12);
    c.check_same("run");
}

TEST_CASE("an end in the middle of an optimizer step is told, and the rest is left alone") {
    SlowCapture c;
    const auto& job = c.job;
    c.show(11);
    c.done();
    job.run(c.producer());
    const auto p =
        job.run(c.trainer("run", {"--accumulation", "4", "--consume-once", "--keep-last"}));
    CHECK_THAT(p->output(), Contains("3 batches at the end make no whole optimizer step"));
    const auto result = Json::parse(p->last_line());
    CHECK(result["step"] == 2);
    CHECK(result["left_over"] == 3);
    CHECK(result["ledger"]["freed"] == 8);
    CHECK(c.objects() == 3);
}

TEST_CASE("what cannot be followed is refused with a remedy") {
    SlowCapture c;
    const auto& job = c.job;
    c.show(12);
    c.done();
    job.run(c.producer());
    const auto refused = [&](const std::vector<std::string>& more, const std::string& what) {
        auto words = job.train(
            "run", {"--store", job.store(), "--manifest", job.path("s.jsonl"), "--follow"}, more);
        CHECK_THAT(job.run(words, 1)->errors(), Contains(what));
    };
    refused({}, "--total-steps");
    refused({"--scheduler", "constant"}, "--total-steps");
    refused({"--max-steps", "12", "--epochs", "2"}, "one epoch");
    job.run(c.trainer("run", {"--scheduler", "constant", "--warmup-ratio", "0"}));
    CHECK_THAT(job.run(job.train("files", job.colocated(), {"--consume-once"}), 1)->errors(),
               Contains("never removed"));
    // Another stream is another run.
    std::filesystem::remove(job.path("s.jsonl"));
    job.run(c.producer());
    CHECK_THAT(
        job.run(c.trainer("run", {"--scheduler", "constant", "--warmup-ratio", "0"}), 1)->errors(),
        Contains("the ledger is of another run"));
}
