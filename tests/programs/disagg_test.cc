#include <catch2/catch.hpp>

#include "tests/programs/tiny_job.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::TinyJob;
using Environment = std::map<std::string, std::string>;

namespace {
const std::string program = "examples/disagg/disagg";

Environment environment(const TinyJob& job, const std::string& out) {
    return {{"DISAGG_STORE_ROOT", job.path("store")},
            {"DISAGG_MANIFEST", job.path("manifest.json")},
            {"DISAGG_STORE_ID", "tiny"},
            {"DISAGG_AUTH_TOKEN", "secret"},
            {"DISAGG_LOG_INTERVAL", "4"},
            {"EYAS_FEATURES", job.path("features")},
            {"EYAS_TARGET", job.path("target")},
            {"EYAS_DRAFT_CONFIG", job.path("draft.json")},
            {"EYAS_VOCAB_MAP", job.path("map.safetensors")},
            {"EYAS_TTT_LENGTH", "2"},
            {"EYAS_LR", "1e-3"},
            {"EYAS_OUT", job.path(out)}};
}

Environment with(Environment e, const Environment& more) {
    for (const auto& [name, value] : more) e[name] = value;
    return e;
}
}  // namespace

TEST_CASE("two pools by rank, the consumer first, end with the colocated run's bits") {
    const TinyJob job;
    job.capture();
    const auto consumer =
        job.start({}, with(environment(job, "consumer"), {{"RANK", "1"}}), program);
    consumer->await("waiting for");
    const auto producer = job.start({}, with(environment(job, "-"), {{"RANK", "0"}}), program);
    CHECK(producer->wait() == 0);
    CHECK_THAT(producer->output(), Contains("[producer] 12/12 samples"));
    INFO(consumer->output() << consumer->errors());
    CHECK(consumer->wait() == 0);
    CHECK_THAT(consumer->output(), Contains("[consumer] step 4/12") && Contains("done at step 12"));

    const auto colocated =
        job.start({}, with(environment(job, "colocated"), {{"DISAGG_ROLE", "colocated"}}), program);
    CHECK(colocated->wait() == 0);
    job.run({"compare", job.path("consumer"), job.path("colocated")});
}

TEST_CASE("a producer that never comes, a wrong role and a missing variable are errors") {
    const TinyJob job;
    job.capture();
    const auto fails = [&](const Environment& more, const std::string& what) {
        const auto p = job.start({}, with(environment(job, "run"), more), program);
        CHECK(p->wait() == 1);
        CHECK_THAT(p->errors(), Contains(what));
    };
    fails({{"DISAGG_ROLE", "consumer"}, {"DISAGG_PEER_WAIT_TIMEOUT", "1"}},
          "no producer finished within 1 s");
    fails({{"DISAGG_ROLE", "trainer"}}, "DISAGG_ROLE is 'trainer'");
    fails({{"DISAGG_ROLE", "producer"}, {"DISAGG_MANIFEST", ""}}, "DISAGG_MANIFEST is not set");
    fails({{"DISAGG_ROLE", "consumer"}, {"DISAGG_LOG_INTERVAL", "often"}}, "DISAGG_LOG_INTERVAL");
}

TEST_CASE("a producer that is started again has nothing to do, one that is stopped says so") {
    const TinyJob job;
    job.capture();
    const Environment producer{{"RANK", "0"}, {"DISAGG_LOG_INTERVAL", "1"}};
    CHECK(job.start({}, with(environment(job, "-"), producer), program)->wait() == 0);
    const auto manifest = read_text_file(job.path("manifest.json"));
    const auto again = job.start({}, with(environment(job, "-"), producer), program);
    CHECK(again->wait() == 0);
    CHECK_THAT(again->output(), Contains("nothing to do"));
    CHECK(read_text_file(job.path("manifest.json")) == manifest);  // of the same generation

    std::filesystem::remove(job.path("manifest.json.done"));
    std::filesystem::path first;
    for (const auto& e : std::filesystem::recursive_directory_iterator(job.path("features")))
        if (e.path().extension() == ".ckpt") first = e.path();
    for (int i = 0; i < 3000; ++i)
        std::filesystem::copy(first, job.path("features/" + std::to_string(i) + ".ckpt"));
    const auto stopped = job.start({}, with(environment(job, "-"), producer), program);
    stopped->await("1/3012 samples");
    stopped->signal(SIGTERM);
    CHECK(stopped->wait() == 1);
    CHECK_THAT(stopped->errors(), Contains("interrupted"));
    CHECK_THAT(read_text_file(job.path("manifest.json.failed")), Contains("interrupted"));
}
