#include <catch2/catch.hpp>

#include "eyas/capture/rollout_job.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/store.hpp"
#include "tests/capture/rollout_fixture.hpp"

using namespace eyas;
using Fixture = eyas::test::RolloutFixture;
using Files = FeatureFiles;
using MemoryStore = Store<Memory>;

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

TEST_CASE("a stream holds states of one precision", "[rollout]") {
    Fixture f;
    auto model = f.model();
    auto rounding = f.model<Bf16>();
    const auto stream = f.dir.path() / "refs.jsonl";
    MemoryStore store({.store_id = "s"});
    f.answer(model, FeatureStore<MemoryStore>(model, store, stream, {}, {}));
    const auto told = read_text_file(stream);
    CHECK_THROWS_WITH((FeatureStore<MemoryStore>(rounding, store, stream, {}, {})),
                      Catch::Contains("precision: \"float32\" and \"bfloat16\""));
    CHECK(read_text_file(stream) == told);
    CHECK_NOTHROW(FeatureStore<MemoryStore>(model, store, stream, {}, {}));
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

TEST_CASE("a rollout whose layers are refused leaves no stream behind", "[rollout]") {
    const Fixture f;
    const auto model = f.model({0, 2});
    const auto stream = f.dir.path() / "refs.jsonl";
    MemoryStore store({.store_id = "s"});
    CHECK_THROWS_WITH(FeatureStore<MemoryStore>(model, store, stream, {}, {}),
                      Catch::Contains("2 layers"));
    CHECK_FALSE(std::filesystem::exists(stream));
}
