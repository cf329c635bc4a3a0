#include "eyas/capture/rollout_job.hpp"

#include <catch2/catch.hpp>

#include "eyas/capture/capture.hpp"
#include "eyas/capture/feature_sinks.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/ingest/ingest.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/store.hpp"
#include "tests/capture/tiny_llama.hpp"

using namespace eyas;
using eyas::test::packable;
using eyas::test::random_ids;
using eyas::test::ScratchDirectory;
using eyas::test::TinyLlama;

namespace {

using Files = FeatureFiles;
using MemoryStore = Store<Memory>;

struct Fixture {
    ScratchDirectory dir;
    std::vector<Prompt> prompts;
    RolloutOptions options{.sampling = {.temperature = 1.5, .seed = 3},
                           .max_new_tokens = 12,
                           .stop_ids = {7, 8, 9},
                           .slots = 4,
                           .capture = true};
    std::filesystem::path out = dir.path() / "answers.jsonl";

    Fixture() {
        TinyLlama(true, 1, packable).write(dir.path() / "model");
        for (std::uint32_t i = 0; i < 9; ++i)
            prompts.push_back({"p" + std::to_string(i), random_ids(3 + 4 * i, packable.vocab, i)});
    }
    TargetModel<Cpu> model(std::vector<std::int64_t> layers = {0, 2, 5}) const {
        return TargetModel<Cpu>(HfWeights(dir.path() / "model"), {layers});
    }
    template <class Sink>
    RolloutJobReport answer(TargetModel<Cpu>& m, Sink&& sink, std::int64_t max_len = 2048) const {
        return answer_prompts(m, std::span<const Prompt>(prompts), out, options, sink, max_len);
    }
    std::filesystem::path features() const { return dir.path() / "features"; }
    std::filesystem::path beside(const char* suffix) const { return out.string() + suffix; }
    std::vector<std::string> lines() const {
        std::vector<std::string> all;
        eyas::detail::for_each_line(out, [&](std::string_view l, auto&&) { all.emplace_back(l); });
        return all;
    }
};

/// Ends a rollout like a full disk, when `left` answers were taken.
struct Failing : NoFeatures {
    explicit Failing(std::int64_t n) : left(n) {}
    void take(const GeneratedSequence&) {
        if (left-- == 0) throw ResourceError("full", "disk", "Free some");
    }
    std::int64_t left;
};

bool skips(const TargetModel<Cpu>& model) {
    if (model.row_invariant()) return false;
    WARN("SKIPPED: no packed products on this processor");
    return true;
}

}  // namespace

TEST_CASE("answers appear in the order of the prompts, as conversations", "[rollout]") {
    const Fixture f;
    auto model = f.model();
    const auto report = f.answer(model, NoFeatures());
    CHECK_FALSE(report.stopped);
    CHECK(report.reused == 0);
    const auto talks = read_conversations(f.out);
    REQUIRE(talks.size() == 9);
    const auto lines = f.lines();
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < 9; ++i) {
        const auto j = parse_json(lines[i], "line");
        CHECK(j.at("id") == "p" + std::to_string(i));
        const auto n = static_cast<std::int64_t>(f.prompts[i].input_ids.size());
        CHECK(j.at("prompt_tokens") == n);
        CHECK(std::ranges::count(talks[i].loss_mask, 0) == n);
        const bool stopped = talks[i].input_ids.back() >= 7 && talks[i].input_ids.back() <= 9;
        CHECK(j.at("finish") == (stopped ? "stop" : "length"));
        tokens += talks[i].tokens();
    }
    CHECK(report.statistics.samples == 9);
    CHECK(report.statistics.tokens == tokens);
    CHECK_FALSE(std::filesystem::exists(f.beside(".part")));
    const auto again = f.answer(model, NoFeatures());
    CHECK(again.reused == 9);
    CHECK(again.run.steps == 0);
    CHECK(f.lines() == lines);
}

TEST_CASE("feature files are those that capture writes over the finished text", "[rollout]") {
    const Fixture f;
    auto model = f.model();
    if (skips(model)) return;
    Files files(model, f.features(), 2048);
    const auto report = f.answer(model, files);
    const auto talks = read_conversations(f.out);
    const auto other = f.dir.path() / "captured";
    FeatureCapture<Cpu>(model, other).run(talks);
    std::int64_t compared = 0;
    for (std::int64_t i = 0; i < 9; ++i) {
        const auto& mask = talks[static_cast<std::size_t>(i)].loss_mask;
        const bool teaches = supervised_tokens(mask, 2048) > 0;
        REQUIRE(std::filesystem::exists(feature_file(f.features(), i)) == teaches);
        if (!teaches) continue;
        CHECK(read_text_file(feature_file(f.features(), i)) ==
              read_text_file(feature_file(other, i)));
        ++compared;
    }
    CHECK(compared == 9 - report.statistics.unsupervised_samples);
    CHECK(compared > 4);
    CHECK(declared_end(capture_done_file(f.features())) ==
          DeclaredEnd{static_cast<std::size_t>(compared)});
}

TEST_CASE("a store gets what ingest of captured files puts there", "[rollout]") {
    Fixture f;
    f.options.stop_ids = {};  // every answer teaches: ids of samples are files' places
    auto model = f.model();
    if (skips(model)) return;
    MemoryStore mine({.store_id = "s"}), theirs({.store_id = "s"});
    const auto text = [](SampleRef ref) {
        ref.feature_store_uri.clear();  // names the store's own memory
        ref.metadata.erase(token_hash_key);
        return ref_to_json(ref);
    };
    FeatureStore<MemoryStore> sink(model, mine, f.dir.path() / "refs.jsonl", {}, {});
    f.answer(model, sink);
    FeatureCapture<Cpu>(model, f.features()).run(read_conversations(f.out));
    const auto want = ingest(theirs, f.features()).manifest;
    const auto got = sink.manifest();
    REQUIRE(got.refs.size() == want.refs.size());
    for (std::size_t i = 0; i < 9; ++i) {
        CHECK(text(got.refs[i]) == text(want.refs[i]));
        const auto ids = read_conversations(f.out)[i].input_ids;
        CHECK(got.refs[i].metadata.at(token_hash_key) ==
              hex64(xxh3(std::as_bytes(std::span(ids)))));
        const auto a = mine.acquire(got.refs[i]), b = theirs.acquire(want.refs[i]);
        const auto x = mine.view(a), y = theirs.view(b);
        REQUIRE(x.size() == 4);
        for (std::size_t t = 0; t < 4; ++t) {
            CHECK(x[t].name == y[t].name);
            CHECK(std::ranges::equal(x[t].tensor.bytes(), y[t].tensor.bytes()));
        }
    }
    auto by_index = read_manifest(f.dir.path() / "refs.jsonl").refs;
    std::ranges::sort(by_index, {}, &SampleRef::sample_id);
    for (std::size_t i = 0; i < 9; ++i) CHECK(ref_to_json(by_index[i]) == ref_to_json(got.refs[i]));
}

TEST_CASE("a rollout that broke off goes on to the same file", "[rollout]") {
    Fixture f;
    auto model = f.model();
    if (skips(model)) return;
    f.answer(model, NoFeatures());
    const auto want = f.lines();
    for (const auto& e : {"", ".rollout.json"}) std::filesystem::remove(f.beside(e));
    CHECK_THROWS_AS(f.answer(model, Failing(3)), ResourceError);
    CHECK_FALSE(std::filesystem::exists(f.out));
    // A killed writer leaves half a line.
    auto part = read_text_file(f.beside(".part"));
    CHECK(std::ranges::count(part, '\n') == 3);
    write_text_file(f.beside(".part"), part + part.substr(0, 40));
    f.options.slots = 2;  // no matter
    CHECK_THROWS_AS(f.answer(model, Failing(2)), ResourceError);
    const auto report = f.answer(model, NoFeatures());
    CHECK(report.reused == 5);
    CHECK(report.run.finished() == 4);
    CHECK(report.statistics.samples == 9);
    CHECK(f.lines() == want);
}

TEST_CASE("an answer whose features are lost is generated again", "[rollout]") {
    const Fixture f;
    auto model = f.model();
    if (skips(model)) return;
    f.answer(model, Files(model, f.features(), 2048));
    const auto want = f.lines();
    const auto bytes = read_text_file(feature_file(f.features(), 8));
    std::filesystem::resize_file(feature_file(f.features(), 8), 200);
    const auto report = f.answer(model, Files(model, f.features(), 2048));
    CHECK(report.reused == 8);
    CHECK(f.lines() == want);
    CHECK(read_text_file(feature_file(f.features(), 8)) == bytes);
}

TEST_CASE("a sample that the store has is not put again", "[rollout]") {
    Fixture f;
    f.options.stop_ids = {};
    auto model = f.model();
    if (skips(model)) return;
    const auto stream = f.dir.path() / "refs.jsonl";
    MemoryStore store({.store_id = "s"});
    std::atomic<bool> stop{false};
    f.options.stop = &stop;
    f.options.on_step = [&](const RolloutReport& r) { stop = r.finished() >= 4; };
    CHECK(f.answer(model, FeatureStore<MemoryStore>(model, store, stream, {}, {})).stopped);
    CHECK_FALSE(read_text_file(stream).find("\"end\"") != std::string::npos);
    f.options.stop = nullptr;
    // The line of the last answer was lost: its sample was told, its answer does not count.
    const auto part = read_text_file(f.beside(".part"));
    write_text_file(f.beside(".part"), part.substr(0, part.size() - 2));
    {
        FeatureStore<MemoryStore> sink(model, store, stream, {}, {});
        const auto report = f.answer(model, sink);
        CHECK(report.run.finished() + report.reused == 9);
        CHECK(sink.stream().finished());
        for (const auto& ref : sink.manifest().refs) CHECK(ref.metadata.at("generation") == 1);
    }
    auto other = f.model({1, 2, 5});
    CHECK_THROWS_WITH(
        FeatureStore<MemoryStore>(other, store, stream, {}, {}),
        Catch::Contains("this rollout") && Catch::Contains("layers: [0,2,5] and [1,2,5]"));
}

TEST_CASE("features of another rollout in the stream are never taken for an answer's",
          "[rollout]") {
    Fixture f;
    f.options.stop_ids = {};
    auto model = f.model();
    const auto stream = f.dir.path() / "refs.jsonl";
    MemoryStore store({.store_id = "s"});
    f.answer(model, FeatureStore<MemoryStore>(model, store, stream, {}, {}));
    const auto told = read_text_file(stream);
    auto max_len = IngestOptions().max_len;
    const auto other_rollout = [&] { f.out = f.dir.path() / "others.jsonl"; };
    SECTION("with another seed") {
        f.options.sampling.seed = 4;
        other_rollout();
    }
    SECTION("to other prompts") {
        f.prompts[0].input_ids[0] ^= 1;
        other_rollout();
    }
    SECTION("whose refs do not say of which tokens they are") {
        auto silent = told;
        const auto key = silent.find(token_hash_key);
        silent.replace(key, std::string(token_hash_key).size(), "another_key___");
        write_text_file(stream, silent);
        FeatureStore<MemoryStore> sink(model, store, stream, {}, {});
        CHECK_THROWS_AS(f.answer(model, sink), ContractError);
        return;
    }
    SECTION("though this one's answer has no features") {
        f.options.sampling.seed = 4;
        max_len = 8;
        other_rollout();
    }
    IngestOptions options;
    options.max_len = max_len;
    FeatureStore<MemoryStore> sink(model, store, stream, {}, options);
    CHECK_THROWS_WITH(f.answer(model, sink, max_len),
                      Catch::Contains("refs.jsonl: sample 'disagg:00000000'") &&
                          Catch::Contains("of other tokens"));
    CHECK_THROWS_AS(f.answer(model, sink, max_len), ContractError);
    CHECK(read_text_file(stream) == told);
}

TEST_CASE("features of more answers than there are prompts are refused", "[rollout]") {
    Fixture f;
    f.options.stop_ids = {};
    auto model = f.model();
    const auto stream = f.dir.path() / "refs.jsonl";
    MemoryStore store({.store_id = "s"});
    f.answer(model, FeatureStore<MemoryStore>(model, store, stream, {}, {}));
    f.out = f.dir.path() / "again.jsonl";
    f.answer(model, Files(model, f.features(), 2048));
    // The place behind the last prompt may be empty: not every answer has features.
    std::filesystem::remove(feature_file(f.features(), 7));
    f.prompts.resize(7);
    f.out = f.dir.path() / "fewer.jsonl";
    const auto bytes = read_text_file(feature_file(f.features(), 0));
    CHECK_THROWS_AS(f.answer(model, Files(model, f.features(), 2048)), ContractError);
    CHECK_THROWS_WITH(f.answer(model, Files(model, f.features(), 2048)),
                      Catch::Contains("holds more than these 7") && Catch::Contains("data_8.ckpt"));
    CHECK(std::filesystem::exists(capture_done_file(f.features())));
    FeatureStore<MemoryStore> sink(model, store, stream, {}, {});
    CHECK_THROWS_AS(f.answer(model, sink), ContractError);
    CHECK_THROWS_WITH(f.answer(model, sink),
                      Catch::Contains("more than these 7") && Catch::Contains("disagg:00000007"));
    CHECK_FALSE(std::filesystem::exists(f.out));
    CHECK_FALSE(std::filesystem::exists(f.beside(".rollout.json")));
    std::filesystem::remove(feature_file(f.features(), 8));
    f.answer(model, Files(model, f.features(), 2048));
    CHECK(read_text_file(feature_file(f.features(), 0)) == bytes);
}

TEST_CASE("an answer that has no features removes those of another rollout", "[rollout]") {
    Fixture f;
    f.options.stop_ids = {};
    auto model = f.model();
    f.answer(model, Files(model, f.features(), 2048));
    REQUIRE(std::filesystem::exists(feature_file(f.features(), 5)));
    const bool answered = GENERATE(false, true);  // already, or by this run
    f.out = f.dir.path() / "others.jsonl";
    f.options.sampling.seed = 4;
    if (answered) f.answer(model, NoFeatures());
    f.answer(model, Files(model, f.features(), 12), 12);  // of 3, 7, 11, 15 … tokens
    std::int64_t files = 0;
    for (std::int64_t i = 0; i < 9; ++i)
        files += std::filesystem::exists(feature_file(f.features(), i));
    CHECK(files == 2);
    CHECK(declared_end(capture_done_file(f.features())) == DeclaredEnd{2});
}

TEST_CASE("features of an answer stay where a shorter length needs none", "[rollout]") {
    Fixture f;
    f.options.stop_ids = {};
    auto model = f.model();
    f.answer(model, Files(model, f.features(), 2048));
    const auto bytes = read_text_file(feature_file(f.features(), 8));
    bool lost = false;  // the answers, which are then generated again
    SECTION("the answers are there") {}
    SECTION("the answers are lost") { lost = true; }
    if (lost && skips(model)) return;
    if (lost)
        for (const auto& e : {"", ".rollout.json"}) std::filesystem::remove(f.beside(e));
    const auto report = f.answer(model, Files(model, f.features(), 12), 12);
    CHECK(report.reused == (lost ? 0 : 9));
    CHECK(report.statistics.unsupervised_samples == 7);
    CHECK(read_text_file(feature_file(f.features(), 8)) == bytes);
    CHECK(declared_end(capture_done_file(f.features())) == DeclaredEnd{9});
}

TEST_CASE("a rollout that is refused leaves the ends of the finished one", "[rollout]") {
    Fixture f;
    f.options.stop_ids = {};
    auto model = f.model();
    f.answer(model, Files(model, f.features(), 2048));
    SECTION("for its seed") {
        f.options.sampling.seed = 4;
        CHECK_THROWS_WITH(f.answer(model, Files(model, f.features(), 2048)),
                          Catch::Contains("another model"));
    }
    SECTION("as another one is at work") {
        const LineFile held(f.beside(".part"), false, "busy", "Wait");
        CHECK_THROWS_WITH(f.answer(model, Files(model, f.features(), 2048)),
                          Catch::Contains("another rollout"));
    }
    CHECK(declared_end(capture_done_file(f.features())) == DeclaredEnd{9});
}

TEST_CASE("two writers never share a directory of features", "[rollout]") {
    const Fixture f;
    auto model = f.model();
    const auto refused = [&] {
        CHECK_THROWS_WITH(Files(model, f.features(), 2048),
                          Catch::Contains("another capture or rollout"));
        CHECK_THROWS_AS((FeatureCapture<Cpu>(model, f.features())), ResourceError);
    };
    {
        const Files files(model, f.features(), 2048);
        refused();
    }
    {
        const FeatureCapture<Cpu> capture(model, f.features());
        refused();
    }
    CHECK_NOTHROW(Files(model, f.features(), 2048));
}

TEST_CASE("the index of a feature file is in its name", "[rollout]") {
    for (const std::int64_t i : {0, 17, 2000}) CHECK(feature_index(feature_file("dir", i)) == i);
    CHECK(feature_index("data_3.ckpt.gz") == 3);
    for (const char* other : {"data_.ckpt", "data_3", "data_3.ckpt.tmp", "data_-1.ckpt", "a_3.ckpt",
                              "data_3x.ckpt", "data_99999999999999999999.ckpt"})
        CHECK_FALSE(feature_index(other));
}

TEST_CASE("a rollout whose layers are refused leaves no stream behind", "[rollout]") {
    const Fixture f;
    const auto model = f.model({0, 2});
    const auto stream = f.dir.path() / "refs.jsonl";
    MemoryStore store({.store_id = "s"});
    CHECK_THROWS_WITH(FeatureStore<MemoryStore>(model, store, stream, {}, {}),
                      Catch::Contains("2 layers"));
    CHECK_FALSE(std::filesystem::exists(stream));
}

TEST_CASE("answers of another rollout are never mixed in", "[rollout]") {
    Fixture f;
    auto model = f.model();
    CHECK_THROWS_AS(f.answer(model, Failing(2)), ResourceError);
    SECTION("another seed") { f.options.sampling.seed = 4; }
    SECTION("other stop tokens") { f.options.stop_ids = {7}; }
    SECTION("another prompt") { f.prompts[5].input_ids[0] ^= 1; }
    SECTION("another id") { f.prompts[5].id = "q"; }
    SECTION("one prompt more") { f.prompts.push_back({"p9", {1}}); }
    SECTION("another model") {
        TinyLlama(true, 2, packable).write(f.dir.path() / "model");
        auto second = f.model();
        CHECK_THROWS_AS(f.answer(second, NoFeatures()), ContractError);
        return;
    }
    CHECK_THROWS_WITH(f.answer(model, NoFeatures()), Catch::Contains("another model"));
}

TEST_CASE("answers of which nothing says whose they are are not adopted", "[rollout]") {
    Fixture f;
    auto model = f.model();
    CHECK_THROWS_AS(f.answer(model, Failing(2)), ResourceError);
    const auto part = read_text_file(f.beside(".part"));
    std::filesystem::remove(f.beside(".rollout.json"));
    f.options.sampling.seed = 4;
    CHECK_THROWS_WITH(f.answer(model, NoFeatures()),
                      Catch::Contains("answers.jsonl.part: holds answers") &&
                          Catch::Contains("answers.jsonl.rollout.json"));
    CHECK(read_text_file(f.beside(".part")) == part);
    CHECK_FALSE(std::filesystem::exists(f.beside(".rollout.json")));
    std::filesystem::remove(f.beside(".part"));
    CHECK(f.answer(model, NoFeatures()).run.finished() == 9);
}

TEST_CASE("what lies in the place of the answers is not overwritten", "[rollout]") {
    const Fixture f;
    auto model = f.model();
    SECTION("another file") {
        write_text_file(f.out, "{}\n");
        CHECK_THROWS_WITH(f.answer(model, NoFeatures()), Catch::Contains("of no rollout"));
        CHECK(read_text_file(f.out) == "{}\n");
        CHECK_FALSE(std::filesystem::exists(f.beside(".part")));
    }
    SECTION("bad lines") {
        CHECK_THROWS_AS(f.answer(model, Failing(2)), ResourceError);
        const auto part = read_text_file(f.beside(".part"));
        const auto with = [&](const char* key, Json value) {
            auto j = parse_json(part.substr(0, part.find('\n')), "line");
            if (value.is_null())
                j.erase(key);
            else
                j[key] = std::move(value);
            return j.dump();
        };
        // The answer's last token replaced by `count` others.
        const auto with_last = [&](std::int64_t id, std::size_t count) {
            auto j = parse_json(part.substr(0, part.find('\n')), "line");
            for (const char* key : {"input_ids", "loss_mask"}) {
                auto& list = j.at(key);
                list.erase(list.size() - 1);
                for (std::size_t n = 0; n < count; ++n)
                    list.push_back(key == std::string("loss_mask") ? 1 : id);
            }
            return j.dump();
        };
        for (const auto& bad :
             {std::string("{"), std::string("null"), with("index", 9), with("index", -1),
              with("index", nullptr), with("input_ids", {1, 2}), with("loss_mask", nullptr),
              with("prompt_tokens", 1), with("finish", "maybe"), with("finish", 3),
              with_last(packable.vocab, 1), with_last(-1, 1), with_last(1, 13)}) {
            CAPTURE(bad);
            write_text_file(f.beside(".part"), part + bad + "\n");
            CHECK_THROWS_WITH(f.answer(model, NoFeatures()), Catch::Contains("line 3"));
            CHECK(read_text_file(f.beside(".part")) == part + bad + "\n");
        }
    }
    SECTION("another rollout at work") {
        const LineFile held(f.beside(".part"), false, "busy", "Wait");
        CHECK_THROWS_WITH(f.answer(model, NoFeatures()), Catch::Contains("another rollout"));
    }
}

TEST_CASE("a set without any supervision is an error, a sample without is counted", "[rollout]") {
    Fixture f;
    auto model = f.model();
    if (skips(model)) return;
    SECTION("one token each: it has nothing to predict") {
        f.options.max_new_tokens = 1;
        CHECK_THROWS_WITH(f.answer(model, Files(model, f.features(), 2048)),
                          Catch::Contains("no answer can have a supervised token"));
        CHECK_FALSE(std::filesystem::exists(f.beside(".rollout.json")));  // nothing was begun
        // Answers without features need not teach.
        CHECK(f.answer(model, NoFeatures()).statistics.unsupervised_samples == 9);
        CHECK(f.lines().size() == 9);
    }
    SECTION("every prompt is beyond max_len") {
        CHECK_THROWS_WITH(f.answer(model, Files(model, f.features(), 4), 4),
                          Catch::Contains("prompts of less than 3 tokens"));
        CHECK_FALSE(std::filesystem::exists(f.beside(".rollout.json")));
        CHECK(f.answer(model, NoFeatures(), 4).statistics.supervised_tokens == 0);
        std::filesystem::remove(f.out);
        std::filesystem::remove(f.beside(".rollout.json"));
        const auto report = f.answer(model, Files(model, f.features(), 5), 5);
        CHECK(report.statistics.supervised_tokens == 1);
    }
    SECTION("every answer stops at once") {
        f.options.stop_ids.clear();
        for (std::int64_t id = 0; id < packable.vocab; ++id) f.options.stop_ids.push_back(id);
        CHECK_THROWS_WITH(f.answer(model, Files(model, f.features(), 2048)),
                          Catch::Contains("no supervised token in any of 9"));
    }
    SECTION("prompts beyond max_len") {
        Files files(model, f.features(), 12);  // of 3, 7, 11, 15 … tokens
        const auto report = f.answer(model, files, 12);
        CHECK(report.statistics.unsupervised_samples >= 7);
        CHECK_FALSE(std::filesystem::exists(feature_file(f.features(), 3)));
        CHECK(report.statistics.supervised_tokens > 0);
        CHECK(f.lines().size() == 9);
    }
}
