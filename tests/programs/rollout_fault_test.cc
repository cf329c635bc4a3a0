#include <catch2/catch.hpp>
#include <csignal>

#include "eyas/ingest/handshake.hpp"
#include "eyas/sample/manifest.hpp"
#include "tests/programs/tiny_job.hpp"

// `eyas rollout` as a user runs it: killed, stopped and started again.

using namespace eyas;
using eyas::test::packable;
using eyas::test::Process;
using eyas::test::random_ids;
using eyas::test::TinyJob;
using eyas::test::TinyLlama;

namespace {

using Words = std::vector<std::string>;

struct Fixture : TinyJob {
    /// Weights that are exact in bfloat16, or none that is.
    explicit Fixture(bool exact = true) {
        auto llama = TinyLlama(true, 1, packable);
        for (auto& [name, values] : llama.weights)
            for (auto& w : values) w *= exact ? 1 : 1 + 0x1p-12f;
        auto config = llama.config();
        config["eos_token_id"] = 5;
        llama.write(path("model"), exact ? DType::BF16 : DType::F32, config);
        std::string lines;
        for (std::uint32_t i = 0; i < 20; ++i)
            lines +=
                Json{{"input_ids", random_ids(3 + i, packable.vocab, i)}, {"repeat", 10}}.dump() +
                "\n";
        write_text_file(path("prompts.jsonl"), lines);
    }
    Words words(const std::string& out, const Words& more = {}) const {
        Words w{"rollout",
                "--model",
                path("model"),
                "--prompts",
                path("prompts.jsonl"),
                "--temperature",
                "1.2",
                "--seed",
                "9",
                "--max-new-tokens",
                "60",
                "--out",
                path(out),
                "--json"};
        w.insert(w.end(), more.begin(), more.end());
        return w;
    }
    std::string text(const std::string& name) const { return read_text_file(path(name)); }

    /// Ends a rollout by a signal once it has put some answers on disk; its exit code.
    int interrupted(const std::string& out, const Words& more, int signal) const {
        const auto part = path(out) + ".part";
        const auto lines = [&] {
            if (!std::filesystem::exists(part)) return std::ptrdiff_t{0};
            const auto t = read_text_file(part);
            return std::ranges::count(t, '\n');
        };
        const auto before = lines();
        auto p = start(words(out, more));
        while (lines() < before + 5) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        p->signal(signal);
        const int code = p->wait();
        CHECK_FALSE(std::filesystem::exists(path(out)));  // it came in the middle
        return code;
    }
};

}  // namespace

TEST_CASE("a rollout that is killed goes on to the file of one that was not", "[rollout]") {
    const Fixture f;
    const auto whole = f.run(f.words("whole.jsonl"));
    const auto result = parse_json(whole->last_line(), "result");
    CHECK(result.at("answered") == 200);
    CHECK(result.at("stopped").get<int>() > 0);  // token 5, of config.json
    CHECK(result.at("cut").get<int>() > 0);
    CHECK(f.interrupted("killed.jsonl", {"--batch", "3"}, SIGKILL) == -SIGKILL);
    CHECK(f.interrupted("killed.jsonl", {"--batch", "7"}, SIGINT) == 1);
    const auto last = f.run(f.words("killed.jsonl"));
    const auto rest = parse_json(last->last_line(), "result");
    CHECK(rest.at("reused").get<int>() >= 10);
    CHECK(rest.at("reused").get<int>() + rest.at("answered").get<int>() == 200);
    CHECK(f.text("killed.jsonl") == f.text("whole.jsonl"));
    CHECK(rest.at("statistics") == result.at("statistics"));
    CHECK_FALSE(std::filesystem::exists(f.path("killed.jsonl.part")));
}

TEST_CASE("features of a killed rollout are those that capture writes", "[rollout]") {
    // Both programs hold weights in the same form where they are not exact in bfloat16, or products
    // are of bfloat16: bits agree.
    const bool rounded = GENERATE(false, true);
    const Fixture f(rounded);
    const std::string precision = rounded ? "bfloat16" : "float32";
    const Words more{"--features", f.path("features"), "--target-precision", precision};
    const auto capture = [&](const std::string& in, int code = 0) {
        return f.run({"capture", "--model", f.path("model"), "--conversations", f.path("a.jsonl"),
                      "--out", f.path("captured"), "--target-precision", in},
                     code);
    };
    CHECK(f.interrupted("a.jsonl", more, SIGKILL) == -SIGKILL);
    const auto wrong = rounded ? "float32" : "bfloat16";
    CHECK_THAT(f.run(f.words("a.jsonl", {"--target-precision", wrong}), 1)->errors(),
               Catch::Contains("another model"));
    f.run(f.words("a.jsonl", more));
    capture(precision);
    const auto told = parse_json(f.text("captured/capture.json"), "capture.json");
    CHECK(told.at("precision") == precision);
    CHECK_THAT(capture(wrong, 1)->errors(), Catch::Contains("precision: \"" + precision));
    std::int64_t files = 0;
    for (const auto& e : std::filesystem::recursive_directory_iterator(f.path("features"))) {
        if (e.path().extension() != ".ckpt") continue;
        const auto other =
            f.path("captured") / std::filesystem::relative(e.path(), f.path("features"));
        CHECK(read_text_file(e.path()) == read_text_file(other));
        ++files;
    }
    CHECK(files > 150);
}

TEST_CASE("a killed rollout into a store ends with every answer in its manifest", "[rollout]") {
    const Fixture f;
    const Words more{"--store", f.store(), "--manifest", f.path("manifest.json")};
    CHECK(f.interrupted("a.jsonl", more, SIGKILL) == -SIGKILL);
    const ManifestHandshake handshake{f.path("manifest.json")};
    CHECK_FALSE(handshake.is_done());
    const auto p = f.run(f.words("a.jsonl", more));
    CHECK(handshake.is_done());
    const auto result = parse_json(p->last_line(), "result").at("statistics");
    const auto refs = read_manifest(f.path("manifest.json")).refs;
    CHECK(std::ssize(refs) ==
          result.at("samples").get<int>() - result.at("unsupervised_samples").get<int>());
    for (std::size_t i = 1; i < refs.size(); ++i) CHECK(refs[i - 1].sample_id < refs[i].sample_id);
}

TEST_CASE("a rollout that is refused leaves the manifest of the finished one", "[rollout]") {
    const Fixture f;
    const Words more{"--store", f.store(), "--manifest", f.path("manifest.json")};
    f.run(f.words("a.jsonl", more));
    const auto manifest = f.text("manifest.json");
    auto other = f.words("a.jsonl", more);
    *(std::ranges::find(other, "--seed") + 1) = "10";
    CHECK_THAT(f.run(other, 1)->errors(), Catch::Contains("another model"));
    const ManifestHandshake handshake{f.path("manifest.json")};
    CHECK(handshake.is_done());
    CHECK_FALSE(std::filesystem::exists(handshake.marker(".failed")));
    CHECK(f.text("manifest.json") == manifest);
}

TEST_CASE("wrong words are refused", "[rollout]") {
    const Fixture f;
    const auto refuse = [&](const Words& more, const std::string& words, int code = 1) {
        CHECK_THAT(f.run(f.words("a.jsonl", more), code)->errors(), Catch::Contains(words));
        CHECK_FALSE(std::filesystem::exists(f.path("a.jsonl")));
    };
    refuse({"--store", f.store()}, "--manifest");
    refuse({"--features", f.path("x"), "--store", f.store(), "--manifest", "m"}, "excludes", 2);
    refuse({"--top-p", "0"}, "top_p");
    refuse({"--stop-ids", "64"}, "stop token 64");
    refuse({"--cache-tokens", "64"}, "request 20");  // the first with a prompt of five tokens
    refuse({"--batch", "0"}, "slots");
    refuse({"--features", f.path("x"), "--layers", "1,2"}, "three");
}
