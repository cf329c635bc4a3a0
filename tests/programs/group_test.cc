#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "eyas/checkpoint/state.hpp"
#include "eyas/format/safetensors.hpp"
#include "tests/collective/ranks.hpp"
#include "tests/programs/tiny_job.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;
using test::TinyJob;

namespace {
using Words = std::vector<std::string>;
const Words long_run{"--epochs",        "100", "--max-steps",    "400", "--log-interval", "10",
                     "--save-interval", "25",  "--peer-timeout", "60"};

std::map<std::string, std::string> rank_of(int rank, std::uint16_t port) {
    return {{"RANK", std::to_string(rank)},
            {"WORLD_SIZE", "2"},
            {"MASTER_ADDR", "127.0.0.1"},
            {"MASTER_PORT", std::to_string(port)}};
}

// Two processes of one training; of rank 1 the options may be others.
struct Pair {
    Pair(const TinyJob& job, const Words& zero, const Words& one)
        : port(test::free_port()),
          first(job.start(zero, rank_of(0, port))),
          second(job.start(one, rank_of(1, port))) {}
    Pair(const TinyJob& job, const Words& both) : Pair(job, both, both) {}

    void must_succeed() {
        const int a = first->wait(), b = second->wait();
        INFO(first->output() << first->errors() << second->errors());
        REQUIRE(a == 0);
        REQUIRE(b == 0);
    }
    std::uint16_t port;
    std::unique_ptr<test::Process> first, second;
};

std::vector<double> losses(const std::string& run) {
    std::vector<double> all;
    const auto text = read_text_file(std::filesystem::path(run) / "metrics.jsonl");
    for (std::size_t at = 0, end; (end = text.find('\n', at)) != text.npos; at = end + 1)
        all.push_back(Json::parse(text.substr(at, end - at)).at("loss").get<double>());
    return all;
}

// Root of the sum of squares of the differences between two checkpoints' weights.
double distance(const std::string& a, const std::string& b) {
    const SafetensorsFile x(a + "/model.safetensors"), y(b + "/model.safetensors");
    double sum = 0;
    for (const auto& t : x.tensors()) {
        if (t.tensor.dtype != DType::F32) continue;
        const auto u = t.tensor.as<float>(), v = y.at(t.name).as<float>();
        for (std::size_t i = 0; i < u.size(); ++i)
            sum += std::pow(static_cast<double>(u[i]) - static_cast<double>(v[i]), 2);
    }
    return std::sqrt(sum);
}

// Whether two runs of 12 steps end alike but for rounding; of the first, each checkpoint was kept.
// A weight's gradient is a sum of at most c = 4 samples * 24 tokens * 2 TTT steps = 192 products,
// whose rounding is another in another order: up to c * u of their magnitudes, u = 2^-24. Adam
// divides by the gradient's own size, so a weight whose products cancel but for a part k takes a
// step that differs by c * u / k, 2 at most; with parts spread evenly over (0, 1) the root of the
// mean square is at most 2 * sqrt(c * u) of a step.
bool agree(const TinyJob& job, const std::string& one, const std::string& other) {
    const double moved =
        distance(job.path(one + "/checkpoint-1"), job.path(one + "/checkpoint-12"));
    return moved > 0.01 &&
           distance(job.path(one + "/checkpoint-12"), job.path(other + "/checkpoint-12")) <=
               2 * std::sqrt(192 * std::ldexp(1.0, -24)) * moved;
}
}  // namespace

TEST_CASE("two processes end as one does with twice the batch, but for rounding; one speaks") {
    const TinyJob job;
    job.capture();
    const auto with_batch = [&](const std::string& out, const std::string& size) {
        return job.train(out, job.colocated(),
                         {"--batch-size", size, "--epochs", "4", "--log-interval", "1",
                          "--save-interval", "1", "--keep", "0"});
    };
    job.run(with_batch("one", "4"));
    Pair pair(job, with_batch("two", "2"));
    pair.must_succeed();
    CHECK_THAT(pair.first->output(), Contains("done at step 12"));
    CHECK(pair.second->output() == "");
    const auto one = losses(job.path("one")), two = losses(job.path("two"));
    REQUIRE(one.size() == 12);
    REQUIRE(two.size() == 12);
    for (std::size_t i = 0; i < 12; ++i) CHECK(two[i] == Approx(one[i]).epsilon(1e-4));
    CHECK(agree(job, "one", "two"));
    CHECK(checkpoint_directories(job.path("two")).size() == 12);
    CHECK(std::filesystem::exists(job.path("two/run.json")));
}

TEST_CASE("processes share the held-out samples, and the figures are those of one") {
    const TinyJob job;
    job.capture();
    // Five of them: three for rank 0, two for rank 1.
    std::filesystem::create_directory(job.path("held-out"));
    std::set<std::filesystem::path> features;
    for (const auto& f : std::filesystem::recursive_directory_iterator(job.path("features")))
        if (f.path().extension() == ".ckpt") features.insert(f.path());
    REQUIRE(features.size() == 12);
    for (auto f = features.begin(); f != std::next(features.begin(), 5); ++f)
        std::filesystem::copy(*f, job.path("held-out") / f->filename());
    const auto words = [&](const std::string& out) {
        auto all = job.train(out, job.colocated(),
                             {"--max-steps", "2", "--eval-features", job.path("held-out"),
                              "--eval-interval", "1", "--keep-best", "--json"});
        *std::next(std::ranges::find(all, "--lr")) = "0";
        return all;
    };
    const auto curve_of = [](const test::Process& p) {
        const auto text = p.output();
        return Json::parse(text.substr(text.rfind('{', text.rfind("\"curve\"")))).at("curve");
    };
    const auto one = curve_of(*job.run(words("one")));
    Pair pair(job, words("two"));
    pair.must_succeed();
    const auto two = curve_of(*pair.first);
    REQUIRE(one.size() == 2);
    REQUIRE(two.size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
        CHECK(two[i].at("samples") == 5);
        CHECK(one[i].at("samples") == 5);
        // Weights do not move, and figures are sums of doubles in another order.
        CHECK(two[i].at("loss").get<double>() ==
              Approx(one[i].at("loss").get<double>()).epsilon(1e-12));
        CHECK(two[i].at("accuracy") == one[i].at("accuracy"));
        for (std::size_t k = 0; k < 2; ++k)
            CHECK(two[i].at("acceptance")[k].get<double>() ==
                  Approx(one[i].at("acceptance")[k].get<double>()).epsilon(1e-12));
    }
    CHECK(std::filesystem::exists(job.path("two/best/best.json")));
    // One of rank 1's is bad: rank 0, which does not evaluate it, learns that rank 1 could not go
    // on.
    const auto bad = job.path("held-out") / std::next(features.begin())->filename();
    auto bytes = read_text_file(bad);
    for (auto at = bytes.size() / 2; at < bytes.size() / 2 + 64; ++at) bytes[at] ^= 0x55;
    std::ofstream(bad, std::ios::binary) << bytes;
    Pair third(job, words("three"));
    CHECK(third.first->wait() == 1);
    CHECK(third.second->wait() == 1);
    CHECK_THAT(third.first->errors(),
               Contains("another rank could not evaluate its held-out samples"));
    CHECK_THAT(third.second->errors(), Contains("offline:00000001") && Contains("checksum"));
    // They do not see the same ones.
    std::filesystem::remove(bad);
    auto all = words("four"), other = all;
    std::filesystem::create_directory(job.path("held-out-2"));
    std::filesystem::copy(*features.begin(), job.path("held-out-2"));
    *std::next(std::ranges::find(other, "--eval-features")) = job.path("held-out-2");
    Pair fourth(job, all, other);
    CHECK(fourth.second->wait() == 1);
    CHECK_THAT(fourth.second->errors(), Contains("held-out samples is"));
}

TEST_CASE("a training goes on with another number of processes, and with as many samples a step") {
    const TinyJob job;
    job.capture();
    const auto train = [&](const std::string& out, const std::string& size, const Words& more) {
        Words words{"--batch-size",   size, "--epochs",        "4", "--total-steps", "12",
                    "--log-interval", "1",  "--save-interval", "1", "--keep",        "0"};
        words.insert(words.end(), more.begin(), more.end());
        return job.train(out, job.colocated(), words);
    };
    job.run(train("whole", "4", {}));
    // Within an epoch of three steps.
    const Words until{"--max-steps", "5"};
    Pair(job, train("two-one", "2", until)).must_succeed();
    CHECK_THAT(job.run(train("two-one", "2", {}), 1)->errors(),
               Contains("samples_per_step: saved 4.0, now 2.0"));
    CHECK_THAT(job.run(train("two-one", "4", {}))->output(), Contains("resumed from"));
    CHECK(agree(job, "whole", "two-one"));
    job.run(train("one-two", "4", until));
    Pair back(job, train("one-two", "2", {}));
    back.must_succeed();
    CHECK_THAT(back.first->output(), Contains("resumed from"));
    CHECK(agree(job, "whole", "one-two"));
    for (const char* run : {"two-one", "one-two"}) {
        const auto all = losses(job.path("whole")), parts = losses(job.path(run));
        REQUIRE(parts.size() == 12);
        for (std::size_t i = 0; i < 12; ++i) CHECK(parts[i] == Approx(all[i]).epsilon(1e-4));
    }
}

TEST_CASE("each process writes the trace that it was asked for") {
    const TinyJob job;
    job.capture();
    const auto words = [&](const std::string& file) {
        return job.train("run", job.colocated(),
                         {"--max-steps", "2", "--bucket-bytes", "4096", "--trace", job.path(file)});
    };
    Pair(job, words("trace.json")).must_succeed();
    for (int rank = 0; rank < 2; ++rank) {
        const auto trace = read_json_file(job.path(rank == 0 ? "trace.json" : "trace-rank-1.json"));
        std::set<std::string> names;
        for (const auto& e : trace) {
            CHECK(e.at("pid") == rank);
            names.insert(e.at("name").get<std::string>());
        }
        for (const char* name : {"wait for data", "forward and backward", "reduce bucket 0",
                                 "reduce bucket 1", "update", "gather bucket 1", "checkpoint"})
            CHECK(names.contains(name));
    }
    CHECK_THAT(job.run(words("none/trace.json"), 1)->errors(), Contains("none/trace.json"));
}

TEST_CASE("a rank that is killed ends the other with its name, and both go on to the same bits") {
    const TinyJob job;
    job.capture();
    const auto whole = job.train("whole", job.colocated(), long_run),
               killed = job.train("killed", job.colocated(), long_run);
    Pair(job, whole).must_succeed();
    for (const int victim : {1, 0}) {
        Pair pair(job, killed);
        pair.first->await(victim == 1 ? "step 60/" : "step 110/");
        auto& dies = victim == 1 ? *pair.second : *pair.first;
        auto& stays = victim == 1 ? *pair.first : *pair.second;
        dies.signal(SIGKILL);
        CHECK(dies.wait() == -SIGKILL);
        CHECK(stays.wait() == 1);
        CHECK_THAT(stays.errors(), Contains("rank " + std::to_string(victim) + " went away") &&
                                       Contains("start all ranks again"));
    }
    Pair again(job, killed);
    again.must_succeed();
    CHECK_THAT(again.first->output(), Contains("resumed from"));
    CHECK_THAT(job.run({"compare", job.path("whole"), job.path("killed")})->output(),
               Contains("identical"));
}

TEST_CASE("ranks that were started differently are told what differs") {
    const TinyJob job;
    job.capture();
    Words slow = long_run, fast = long_run;
    slow.insert(slow.end(), {"--weight-decay", "0.1"});
    fast.insert(fast.end(), {"--weight-decay", "0.2"});
    Pair pair(job, job.train("a", job.colocated(), slow), job.train("a", job.colocated(), fast));
    CHECK(pair.first->wait() == 1);
    CHECK(pair.second->wait() == 1);
    CHECK_THAT(pair.second->errors(),
               Contains(R"(weight-decay is "0.2" here and "0.1" on rank 0)"));
    CHECK_THAT(pair.first->errors(), Contains("rank 1 went away"));
}

TEST_CASE("a launcher's variables that make no sense are an error before anything is read") {
    const TinyJob job;
    CHECK_THAT(
        job.run(job.train("a", job.colocated()), 1, {{"RANK", "2"}, {"WORLD_SIZE", "2"}})->errors(),
        StartsWith("eyas train: RANK: is '2', not a whole number from 0 to 1."));
    CHECK_THAT(job.run(job.train("a", job.colocated()), 1, {{"WORLD_SIZE", "2"}})->errors(),
               StartsWith("eyas train: RANK: is missing."));
}
