#include <catch2/catch.hpp>

#include "eyas/capture/capture.hpp"
#include "eyas/capture/feature_sinks.hpp"
#include "eyas/ingest/ingest.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/store.hpp"
#include "tests/capture/rollout_fixture.hpp"

using namespace eyas;
using eyas::test::skips;
using Fixture = eyas::test::RolloutFixture;
using Files = FeatureFiles;
using MemoryStore = Store<Memory>;

TEMPLATE_TEST_CASE("feature files are those that capture writes over the finished text",
                   "[rollout]", F32, Bf16) {
    const Fixture f;
    auto model = f.model<TestType>();
    if (skips(model)) return;
    Files files(model, f.features(), 2048);
    const auto report = f.answer(model, files);
    const auto talks = read_conversations(f.out);
    const auto other = f.dir.path() / "captured";
    FeatureCapture<Cpu, TestType>(model, other).run(talks);
    CHECK(captured_convention(other)->precision == TestType::name);
    CHECK(read_text_file(capture_file(f.features())) == read_text_file(capture_file(other)));
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
