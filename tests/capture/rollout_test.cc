#include "eyas/capture/rollout.hpp"

#include <catch2/catch.hpp>
#include <limits>
#include <optional>

#include "eyas/device/cpu.hpp"
#include "tests/capture/tiny_llama.hpp"

using namespace eyas;
using eyas::test::packable;
using eyas::test::random_ids;
using eyas::test::ScratchDirectory;
using eyas::test::TinyLlama;

namespace {

struct Fixture {
    TargetModel<Cpu> model = made();
    std::vector<RolloutRequest> requests;

    Fixture() {
        const std::int64_t lengths[] = {3, 1, 40, 7, 16, 17, 5, 33, 2, 9, 12, 4};
        for (std::uint32_t i = 0; i < 12; ++i)
            requests.push_back({100 + i, random_ids(lengths[i], packable.vocab, i)});
    }
    static TargetModel<Cpu> made() {
        const ScratchDirectory dir;
        TinyLlama(true, 1, packable).write(dir.path());
        return TargetModel<Cpu>(HfWeights(dir.path()), {{0, 2, 5}});
    }
    /// In the order of the requests; what came twice or not at all is an error.
    std::vector<GeneratedSequence> run(const RolloutOptions& options,
                                       RolloutReport* report = nullptr) {
        std::vector<std::optional<GeneratedSequence>> got(requests.size());
        const auto r = Rollout<Cpu>(model, options).run(requests, [&](GeneratedSequence&& s) {
            auto& place = got.at(static_cast<std::size_t>(s.index - 100));
            REQUIRE_FALSE(place);
            place = std::move(s);
        });
        if (report) *report = r;
        std::vector<GeneratedSequence> all;
        for (auto& g : got) all.push_back(std::move(g.value()));
        return all;
    }
};

void check_equal(const std::vector<GeneratedSequence>& a, const std::vector<GeneratedSequence>& b) {
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
        CAPTURE(i);
        CHECK(a[i].input_ids == b[i].input_ids);
        CHECK(a[i].finish == b[i].finish);
        CHECK(a[i].states.captured == b[i].states.captured);
        CHECK(a[i].states.last == b[i].states.last);
    }
}

constexpr SamplingOptions warm{.temperature = 1.5, .top_p = 0.9, .seed = 7};

}  // namespace

TEST_CASE("answers and states are the same bits however requests are batched", "[rollout]") {
    Fixture f;
    if (!f.model.row_invariant()) {
        WARN("SKIPPED: no packed products on this processor");
        return;
    }
    const auto sampling = GENERATE(SamplingOptions{}, warm);
    RolloutOptions options{.sampling = sampling,
                           .max_new_tokens = 20,
                           .stop_ids = {3, 9, 11},
                           .slots = 1,
                           .capture = true};
    const auto alone = f.run(options);
    options.slots = 3, options.prefill_tokens = 5;
    check_equal(alone, f.run(options));
    options.slots = 16, options.prefill_tokens = 512;
    check_equal(alone, f.run(options));
    options.prefill_tokens = 1;
    check_equal(alone, f.run(options));
    options.cache_tokens = 64;  // the longest request alone, or two short ones
    RolloutReport report;
    check_equal(alone, f.run(options, &report));
    CHECK(report.mean_batch() < 3);
}

TEST_CASE("each answer is what the model says, token by token", "[rollout]") {
    Fixture f;
    const auto sampling = GENERATE(SamplingOptions{}, warm);
    for (const auto& s : f.run({.sampling = sampling, .max_new_tokens = 6, .slots = 4})) {
        REQUIRE(s.generated_tokens() == 6);
        CHECK(s.finish == Finish::length);
        CHECK(s.states.last.empty());
        const std::span<const std::int64_t> ids(s.input_ids);
        for (auto t = s.prompt_tokens; t < s.tokens(); ++t) {
            const auto states = f.model.forward(ids.first(static_cast<std::size_t>(t)));
            const auto logits = f.model.logits(states.last);
            TokenDistribution d;
            const auto vocab = static_cast<std::size_t>(packable.vocab);
            d.assign(logits.as<float>().last(vocab), sampling);
            CHECK(ids[static_cast<std::size_t>(t)] ==
                  d.draw(keyed_uniform(sampling.seed, static_cast<std::uint64_t>(s.index),
                                       static_cast<std::uint64_t>(t))));
        }
    }
}

TEST_CASE("captured states have all rows and the bits of one forward", "[rollout]") {
    Fixture f;
    if (!f.model.row_invariant()) {
        WARN("SKIPPED: no packed products on this processor");
        return;
    }
    for (const auto& s : f.run({.sampling = warm,
                         .max_new_tokens = 18,
                         .stop_ids = {3, 9, 11},
                         .slots = 5,
                         .prefill_tokens = 7,
                         .capture = true})) {
        const auto whole = f.model.forward(s.input_ids);
        const auto rounded = [](const Tensor& t) {
            std::vector<BFloat16> out;
            for (float x : t.as<float>()) out.emplace_back(x);
            return out;
        };
        CHECK(s.states.captured == rounded(whole.captured));
        CHECK(s.states.last == rounded(whole.last));
    }
}

TEST_CASE("a sequence ends with its first stop token, which is part of it", "[rollout]") {
    Fixture f;
    const auto free = f.run({.sampling = warm, .max_new_tokens = 20});
    const std::vector<std::int64_t> stops{5, 20, 40};
    RolloutReport report;
    const auto stopped =
        f.run({.sampling = warm, .max_new_tokens = 20, .stop_ids = stops, .slots = 4}, &report);
    std::int64_t by_stop = 0, generated = 0, prompt = 0;
    for (std::size_t i = 0; i < free.size(); ++i) {
        auto want = free[i].input_ids;
        const auto answer = want.begin() + free[i].prompt_tokens;
        const auto end = std::find_first_of(answer, want.end(), stops.begin(), stops.end());
        const bool stops_there = end != want.end();
        if (stops_there) want.erase(end + 1, want.end());
        CHECK(stopped[i].input_ids == want);
        CHECK(stopped[i].finish == (stops_there ? Finish::stop : Finish::length));
        const auto talk = stopped[i].conversation();
        CHECK(std::ranges::count(talk.loss_mask, 1) == stopped[i].generated_tokens());
        CHECK(talk.loss_mask.back() == 1);
        by_stop += stops_there;
        generated += stopped[i].generated_tokens();
        prompt += stopped[i].prompt_tokens;
    }
    CHECK(by_stop > 0);
    CHECK(by_stop < 12);  // both ways of ending are looked at
    CHECK(report.stopped == by_stop);
    CHECK(report.cut == 12 - by_stop);
    CHECK(report.generated_tokens == generated);
    CHECK(report.prompt_tokens == prompt);
}

TEST_CASE("finished sequences leave at once and others enter", "[rollout]") {
    Fixture f;
    RolloutReport report;
    f.run({.max_new_tokens = 10, .slots = 4}, &report);
    // Twelve requests of ten tokens, four at a time: the first token comes with the prompt.
    CHECK(report.steps == 30);
    CHECK(report.mean_batch() == 4);
    f.run({.max_new_tokens = 10, .slots = 4, .capture = true}, &report);
    CHECK(report.steps == 33);  // and a row for the state of the last token
}

TEST_CASE("what never fits is refused by name before anything runs", "[rollout]") {
    Fixture f;
    std::int64_t steps = 0;
    const auto refuse = [&](RolloutOptions options, const std::string& words) {
        options.on_step = [&](const RolloutReport&) { ++steps; };
        CHECK_THROWS_WITH(f.run(options), Catch::Contains(words));
    };
    refuse({.max_new_tokens = 20, .cache_tokens = 63}, "request 102");
    refuse({.max_new_tokens = 89}, "request 102");  // 40 + 89 positions of 128
    refuse({.max_new_tokens = std::numeric_limits<std::int64_t>::max()}, "request 100");
    refuse({.max_new_tokens = 0}, "max_new_tokens");
    refuse({.cache_tokens = -1}, "cache_tokens");
    refuse({.cache_tokens = std::numeric_limits<std::int64_t>::max()}, "cache_tokens");
    refuse({.slots = 0}, "slots");
    refuse({.prefill_tokens = 0}, "prefill_tokens");
    refuse({.stop_ids = {packable.vocab}}, "stop token 64");
    refuse({.sampling = {.temperature = -1}}, "temperature");
    f.requests[4].prompt.clear();
    refuse({.max_new_tokens = 5}, "request 104: an empty prompt");
    f.requests[4].prompt = {1, packable.vocab};
    refuse({.max_new_tokens = 5}, "request 104: the prompt holds token 64");
    f.requests[4].prompt = {1, -1};
    refuse({.max_new_tokens = 5}, "request 104: the prompt holds token -1");
    CHECK(steps == 0);
}

TEST_CASE("an answer beyond the model's attention window is refused before anything runs",
          "[rollout]") {
    const ScratchDirectory dir;
    const TinyLlama llama(true, 1, packable);
    auto config = llama.config();
    config["model_type"] = "mistral", config["sliding_window"] = 20;
    llama.write(dir.path(), DType::BF16, config);
    TargetModel<Cpu> model(HfWeights(dir.path()), {{0, 2, 5}});
    std::int64_t steps = 0;
    const auto run = [&](std::int64_t max_new_tokens) {
        const std::vector<RolloutRequest> requests{{0, {1}},
                                                   {1, random_ids(15, packable.vocab, 1)}};
        Rollout<Cpu>(model, {.max_new_tokens = max_new_tokens,
                             .on_step = [&](const RolloutReport&) { ++steps; }})
            .run(requests, {});
    };
    CHECK_THROWS_AS(run(6), DataError);
    CHECK_THROWS_WITH(run(6), Catch::Contains("request 1") &&
                                  Catch::Contains("the model's attention window of 20 tokens"));
    CHECK(steps == 0);
    run(5);
    CHECK(steps == 5);
}

TEST_CASE("an exception of the receiver ends the call and leaves nothing behind", "[rollout]") {
    Fixture f;
    Rollout<Cpu> rollout(f.model, {.max_new_tokens = 5, .slots = 2, .cache_tokens = 96});
    std::int64_t given = 0;
    const auto fail = [&](GeneratedSequence&&) {
        if (++given == 3) throw ResourceError("full", "disk", "Free some");
    };
    CHECK_THROWS_AS(rollout.run(f.requests, fail), ResourceError);
    given = 100;
    CHECK(rollout.run(f.requests, fail).finished() == 12);
}

TEST_CASE("the stop flag ends a rollout between two forwards", "[rollout]") {
    Fixture f;
    std::atomic<bool> stop{false};
    std::int64_t given = 0;
    const auto report =
        Rollout<Cpu>(f.model, {.max_new_tokens = 5,
                               .slots = 2,
                               .on_step = [&](const auto& r) { stop = r.steps == 6; },
                               .stop = &stop})
            .run(f.requests, [&](GeneratedSequence&&) { ++given; });
    CHECK(report.interrupted);
    CHECK(report.steps == 6);
    CHECK(given == 2);
    CHECK(report.finished() == 2);
}

TEST_CASE("logits that are no numbers are an error", "[rollout]") {
    const ScratchDirectory dir;
    TinyLlama broken(true, 1, packable);
    for (auto& w : broken.weights["model.norm.weight"]) w = std::nanf("");
    broken.write(dir.path());
    TargetModel<Cpu> model{HfWeights(dir.path())};
    const RolloutRequest request{0, {1, 2}};
    const auto sampling = GENERATE(SamplingOptions{}, warm);
    Rollout<Cpu> rollout(model, {.sampling = sampling});
    CHECK_THROWS_AS(rollout.run({&request, 1}, {}), DataError);
}
