#include "eyas/capture/rollout_job.hpp"

#include <catch2/catch.hpp>

#include "tests/capture/rollout_fixture.hpp"

using namespace eyas;
using eyas::test::Failing;
using eyas::test::packable;
using eyas::test::skips;
using eyas::test::TinyLlama;
using Fixture = eyas::test::RolloutFixture;
using Files = FeatureFiles;

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
    SECTION("another precision") {
        auto second = f.model<Bf16>();
        CHECK_THROWS_WITH(f.answer(second, NoFeatures()), Catch::Contains("or precision"));
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
