// Processes of one training on a GPU each, joined by NCCL: the program as it is built for GPUs, on
// a CUDA runtime and a NCCL of the host, which also tell misuse and what is not released.
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <sstream>

#include "tests/collective/free_port.hpp"
#include "tests/programs/tiny_job.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::TinyJob;

namespace {
constexpr const char* program = "tests/programs/eyas_on_fake_cuda";
using Words = std::vector<std::string>;
using Variables = std::map<std::string, std::string>;

Words on(const char* device, Words words) {
    words.insert(words.end(), {"--device", device});
    return words;
}

// Two processes of one training; `more`: the environment of each besides.
struct Pair {
    Pair(const TinyJob& job, const Words& zero, const Words& one,
         const std::array<Variables, 2>& more = {Variables{{"LOCAL_RANK", "0"}},
                                                 Variables{{"LOCAL_RANK", "1"}}}) {
        const auto port = std::to_string(test::free_port());
        const auto mail = job.path("nccl");
        std::filesystem::create_directories(mail);
        for (int rank = 0; rank < 2; ++rank) {
            Variables all{{"RANK", std::to_string(rank)}, {"WORLD_SIZE", "2"},
                          {"MASTER_ADDR", "127.0.0.1"},   {"MASTER_PORT", port},
                          {"EYAS_FAKE_GPUS", "2"},        {"EYAS_FAKE_NCCL", mail}};
            for (const auto& [name, value] : more[static_cast<std::size_t>(rank)])
                all[name] = value;
            (rank == 0 ? first : second) = job.start(rank == 0 ? zero : one, all, program);
        }
    }
    Pair(const TinyJob& job, const Words& both) : Pair(job, both, both) {}

    void must_succeed() {
        const int a = first->wait(), b = second->wait();
        INFO(first->output() << first->errors() << second->errors());
        REQUIRE(a == 0);
        REQUIRE(b == 0);
        CHECK(second->output() == "");
    }
    std::unique_ptr<test::Process> first, second;
};

std::vector<double> losses(const TinyJob& job, const std::string& run) {
    std::istringstream lines(read_text_file(job.path(run + "/metrics.jsonl")));
    std::vector<double> all;
    for (std::string line; std::getline(lines, line);) {
        const auto j = parse_json(line, "metrics");
        if (j.contains("loss")) all.push_back(j.at("loss").get<double>());
    }
    return all;
}
}  // namespace

TEST_CASE(
    "a GPU each: the host's training but for rounding, stopped and resumed to the same bits") {
    const TinyJob job;
    job.capture();
    const auto train = [&](const char* device, const std::string& out, const Words& more = {}) {
        Words words{"--batch-size",  "2",  "--epochs",       "4",
                    "--total-steps", "12", "--log-interval", "1"};
        words.insert(words.end(), more.begin(), more.end());
        return on(device, job.train(out, job.colocated(), words));
    };
    Pair(job, train("cpu", "cpu")).must_succeed();
    Pair whole(job, train("cuda", "whole"));
    whole.must_succeed();
    CHECK_THAT(whole.first->output(),
               Contains("2 processes on a GPU each, joined by NCCL; rank 0 is on GPU 0") &&
                   Contains("done at step 12"));
    // As between one GPU and the host (device_test): sums in another order.
    const auto cpu = losses(job, "cpu"), cuda = losses(job, "whole");
    REQUIRE(cpu.size() == 12);
    REQUIRE(cuda.size() == 12);
    for (std::size_t i = 0; i < 12; ++i) CHECK(cuda[i] == Approx(cpu[i]).epsilon(1e-5));
    CHECK(std::abs(cpu[11] - cpu[0]) > 1e-2);  // it learns
    Pair(job, train("cuda", "parts", {"--max-steps", "5"})).must_succeed();
    Pair rest(job, train("cuda", "parts"));
    rest.must_succeed();
    CHECK_THAT(rest.first->output(), Contains("resumed from"));
    CHECK_THAT(job.run({"compare", job.path("parts"), job.path("whole")})->output(),
               Contains("identical"));
    CHECK(std::filesystem::is_empty(job.path("nccl")));  // all took leave of each other
}

TEST_CASE("a rank on a GPU that is killed ends the other with its name, and both go on") {
    const TinyJob job;
    job.capture();
    const auto train = [&](const std::string& out) {
        return on("cuda", job.train(out, job.colocated(),
                                    {"--epochs", "20", "--max-steps", "40", "--log-interval", "1",
                                     "--save-interval", "5", "--peer-timeout", "60"}));
    };
    Pair(job, train("whole")).must_succeed();
    for (const int victim : {1, 0}) {
        Pair pair(job, train("killed"));
        pair.first->await(victim == 1 ? "step 7/" : "step 17/");
        auto& dies = victim == 1 ? *pair.second : *pair.first;
        auto& stays = victim == 1 ? *pair.first : *pair.second;
        dies.signal(SIGKILL);
        CHECK(dies.wait() == -SIGKILL);
        CHECK(stays.wait() == 1);
        CHECK_THAT(stays.errors(), Contains("rank " + std::to_string(victim) + " went away") &&
                                       Contains("start all ranks again"));
    }
    Pair again(job, train("killed"));
    again.must_succeed();
    CHECK_THAT(again.first->output(), Contains("resumed from"));
    CHECK_THAT(job.run({"compare", job.path("whole"), job.path("killed")})->output(),
               Contains("identical"));
}

TEST_CASE("a rank that cannot go on ends the other long before the time-out") {
    const TinyJob job;
    job.capture();
    const auto train = [&](const char* decay) {
        return on("cuda", job.train("a", job.colocated(),
                                    {"--peer-timeout", "3600", "--weight-decay", decay}));
    };
    Pair pair(job, train("0.1"), train("0.2"));
    CHECK(pair.second->wait() == 1);
    CHECK(pair.first->wait() == 1);
    CHECK_THAT(pair.second->errors(),
               Contains(R"(weight-decay is "0.2" here and "0.1" on rank 0)"));
    CHECK_THAT(pair.first->errors(), Contains("rank 1 went away"));
}

TEST_CASE("each process has a GPU of its own, or that is an error") {
    const TinyJob job;
    job.capture();
    const auto words =
        on("cuda", job.train("a", job.colocated(), {"--max-steps", "1", "--peer-timeout", "5"}));
    SECTION("fewer GPUs than processes: both say so") {
        const Variables of_torchrun{{"EYAS_FAKE_GPUS", "1"}, {"LOCAL_WORLD_SIZE", "2"}};
        Variables zero = of_torchrun, one = of_torchrun;
        zero["LOCAL_RANK"] = "0", one["LOCAL_RANK"] = "1";
        Pair pair(job, words, words, {zero, one});
        for (auto* p : {pair.first.get(), pair.second.get()}) {
            CHECK(p->wait() == 1);
            CHECK_THAT(p->errors(), Contains("LOCAL_RANK: this process sees 1 GPUs, and at least 2 "
                                             "processes of this machine want one each") &&
                                        Contains("Start a process for each GPU"));
        }
    }
    SECTION("each is shown another one") {
        Pair pair(job, words, words,
                  {Variables{{"LOCAL_RANK", "0"}, {"CUDA_VISIBLE_DEVICES", "0"}},
                   Variables{{"LOCAL_RANK", "1"}, {"CUDA_VISIBLE_DEVICES", "1"}}});
        pair.must_succeed();
    }
    SECTION("both are shown the same one") {
        Pair pair(job, words, words,
                  {Variables{{"LOCAL_RANK", "0"}, {"CUDA_VISIBLE_DEVICES", "1"}},
                   Variables{{"LOCAL_RANK", "1"}, {"CUDA_VISIBLE_DEVICES", "1"}}});
        CHECK(pair.first->wait() == 1);
        CHECK(pair.second->wait() == 1);
        CHECK_THAT(pair.first->errors() + pair.second->errors(),
                   Contains("Give each rank a GPU of its own"));
    }
    SECTION("no local rank: the rank itself") {
        Pair pair(job, words, words, {Variables{}, Variables{}});
        pair.must_succeed();
    }
}
