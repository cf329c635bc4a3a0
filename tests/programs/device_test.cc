// The program as it is built for a GPU, on a CUDA runtime of the host that also tells misuse and
// what is not released.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <sstream>

#include "tests/programs/tiny_job.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::TinyJob;

namespace {
constexpr const char* with_cuda = "tests/programs/eyas_on_fake_cuda";
using Words = std::vector<std::string>;

/// Runs the program to the end, which must be `code`.
std::unique_ptr<test::Process> on_cuda(const TinyJob& job, Words words, int code = 0,
                                       const char* gpus = "1") {
    words.insert(words.end(), {"--device", "cuda"});
    auto p = job.start(words, {{"EYAS_FAKE_GPUS", gpus}}, with_cuda);
    const int got = p->wait();
    INFO(p->output() << p->errors());
    REQUIRE(got == code);
    return p;
}

/// Losses of the steps of a run.
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

TEST_CASE("train --device cuda: the CPU's training but for rounding, stopped and resumed too") {
    const TinyJob job;
    job.capture();
    const Words each_step{"--log-interval", "1"};
    job.run(job.train("cpu", job.colocated(), each_step));
    CHECK_THAT(on_cuda(job, job.train("whole", job.colocated(), each_step))->output(),
               Contains("done at step 12"));
    // Sums in another order. The golden test bounds the losses of 20 steps by 1e-5, against a
    // reference whose sums are in another order still.
    const auto cpu = losses(job, "cpu"), cuda = losses(job, "whole");
    REQUIRE(cpu.size() == 12);
    REQUIRE(cuda.size() == 12);
    for (std::size_t i = 0; i < 12; ++i) CHECK(cuda[i] == Approx(cpu[i]).epsilon(1e-5));
    CHECK(std::abs(cpu[11] - cpu[0]) > 1e-2);  // it learns
    const auto part =
        job.train("resumed", job.colocated(), {"--max-steps", "5", "--total-steps", "12"});
    on_cuda(job, part);
    CHECK_THAT(
        on_cuda(job, job.train("resumed", job.colocated(), {"--total-steps", "12"}))->output(),
        Contains("resumed from"));
    job.run({"compare", job.path("resumed"), job.path("whole")});
    auto graphs = each_step;
    graphs.emplace_back("--cuda-graphs");
    on_cuda(job, job.train("graphs", job.colocated(), graphs));
    job.run({"compare", job.path("graphs"), job.path("whole")});
    CHECK(losses(job, "graphs") == cuda);
    // Its checkpoint serves both devices.
    const auto evaluate = [&] {
        return Words{"eval",
                     "--target",
                     job.path("target"),
                     "--checkpoint",
                     job.path("whole"),
                     "--ttt-length",
                     "2",
                     "--json",
                     "--store",
                     "file:" + job.path("features")};
    };
    const auto here = parse_json(job.run(evaluate())->last_line(), "eval");
    const auto there = parse_json(on_cuda(job, evaluate())->last_line(), "eval");
    // One forward of the same weights: below the bound of a trajectory.
    CHECK(there.at("loss").get<double>() == Approx(here.at("loss").get<double>()).epsilon(1e-5));
    CHECK(there.at("samples") == here.at("samples"));
}

TEST_CASE(
    "what comes from a pool is copied through the host where UCX reaches no GPU; that is said") {
    const TinyJob job;
    job.capture();
    CHECK_THAT(on_cuda(job, job.train("near", job.colocated()))->output(),
               Contains("features: through pinned host memory (this store's bytes are in the "
                        "host's memory)"));
    const std::map<std::string, std::string> reasons{
        {"ucx", "UCX of this machine has no cuda transports"},
        {"tcp", "sockets write to the host's memory alone; eyas+ucx:// may do more"}};
    for (const auto& [transport, why] : reasons) {
        const auto pool = job.start({"serve", "--store", "memory:pool", "--listen",
                                     "eyas+" + transport + "://127.0.0.1:0"});
        pool->await(" on eyas+");
        pool->await("\n");
        const auto said = pool->output();
        const auto at = said.find(" on ") + 4;
        const auto address = said.substr(at, said.find('\n', at) - at);
        job.run({"ingest", "--features", job.path("features"), "--store", address, "--manifest",
                 job.path("manifest.json")});
        for (const char* verify : {"", "--no-verify"}) {
            const auto out = transport + verify;
            auto words = job.train(out, {"--store", address + "?same_host=0", "--manifest",
                                         job.path("manifest.json")});
            if (*verify) words.emplace_back(verify);
            CHECK_THAT(on_cuda(job, words)->output(),
                       Contains("features: through pinned host memory (" + why + ")"));
            CHECK_THAT(job.run({"compare", job.path(out), job.path("near")})->output(),
                       Contains("identical"));
        }
        pool->signal(SIGTERM);
        CHECK(pool->wait() == 0);
    }
}

TEST_CASE("train --attention cudnn: bfloat16 by cuDNN's graphs, the same bits each time") {
    const TinyJob job;
    job.capture();
    const Words bf16{"--precision", "bfloat16", "--log-interval", "1"};
    auto by_cudnn = bf16;
    by_cudnn.insert(by_cudnn.end(), {"--attention", "cudnn"});
    for (const Words& wrong :
         {Words{"--attention", "cudnn"}, Words{"--attention", "cudnn", "--precision", "bfloat16"}})
        CHECK_THAT(job.run(job.train("wrong", job.colocated(), wrong), 1)->errors(),
                   Contains("Add --device cuda --precision bfloat16"));
    CHECK_THAT(
        job.run(job.train("wrong", job.colocated(), {"--attention-workspace", "1"}), 1)->errors(),
        Contains("--attention-workspace with --attention strips"));
    auto words = job.train("narrow", job.colocated(), by_cudnn);
    words.insert(words.end(), {"--device", "cuda"});
    const auto narrow = job.start(words, {{"EYAS_FAKE_GPUS", "1"}}, with_cuda);
    if (narrow->wait() == 1 && narrow->errors().find("built without cuDNN") != std::string::npos) {
        std::printf("SKIPPED: cuDNN or the headers of cudnn-frontend are not here\n");
        return;
    }
    CHECK_THAT(narrow->output(),
               Contains("done at step 12") && Contains("48 by own strips (cuDNN's validate"));
    CHECK_THAT(narrow->errors(), Contains("did not take a shape, own strips attend: cuDNN's"));
    auto packed = by_cudnn;
    packed.insert(packed.end(), {"--pack-tokens", "48"});
    CHECK_THAT(on_cuda(job, job.train("wrong", job.colocated(), packed), 1)->errors(),
               Contains("--attention cudnn with --pack-tokens"));
    CHECK_THAT(on_cuda(job,
                       {"eval", "--target", job.path("target"), "--checkpoint", job.path("narrow"),
                        "--precision", "bfloat16", "--attention", "cudnn", "--conversations",
                        job.path("conversations.jsonl")},
                       1)
                   ->errors(),
               Contains("--attention cudnn with --conversations"));
    auto draft = parse_json(read_text_file(job.path("draft.json")), "draft.json");
    draft["head_dim"] = 8;  // what cuDNN takes
    write_text_file(job.path("draft.json"), draft.dump());
    const auto first = on_cuda(job, job.train("cudnn", job.colocated(), by_cudnn));
    CHECK_THAT(first->output(), Contains("attention: cuDNN 9.") && Contains(", 48 calls") &&
                                    !Contains("own strips"));
    on_cuda(job, job.train("again", job.colocated(), by_cudnn));
    auto little = by_cudnn;
    little.insert(little.end(), {"--attention-workspace", "1", "--max-steps", "1"});
    CHECK_THAT(on_cuda(job, job.train("little", job.colocated(), little))->errors(),
               Contains("bytes of workspace, more than 1"));
    on_cuda(job, job.train("strips", job.colocated(), bf16));
    CHECK_THAT(job.run({"compare", job.path("cudnn"), job.path("again")})->output(),
               Contains("identical"));
    const auto a = losses(job, "cudnn"), b = losses(job, "strips");
    REQUIRE(a.size() == 12);
    REQUIRE(b.size() == 12);
    // Before anything was learned apart: results of attention that differ by a rounding or two.
    CHECK(a[0] == Approx(b[0]).epsilon(0x1p-8));
    CHECK(a[0] != b[0]);
}

TEST_CASE("without a GPU, or without CUDA in the program, that is said, and nothing is written") {
    const TinyJob job;
    job.capture();
    CHECK_THAT(on_cuda(job, job.train("none", job.colocated()), 1, "0")->errors(),
               Contains("no CUDA device") && Contains("use the device Cpu"));
    const auto p = job.run(job.train("none", job.colocated(), {"--device", "cuda"}), 1);
    CHECK_THAT(p->errors(), Contains("built without CUDA") && Contains("eyas-cuda"));
    const auto graphs = job.run(job.train("none", job.colocated(), {"--cuda-graphs"}), 1);
    CHECK_THAT(graphs->errors(), Contains("--cuda-graphs with --device cpu") &&
                                     Contains("Leave out --cuda-graphs, or use --device cuda"));
    CHECK_FALSE(std::filesystem::exists(job.path("none")));
}
