#include <catch2/catch.hpp>

#include "tests/programs/tiny_job.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::TinyJob;
using Environment = std::map<std::string, std::string>;

namespace {
const Environment token{{"DISAGG_AUTH_TOKEN", "secret"}};

/// `eyas serve` on a free port or a socket file; its address as it printed it.
struct Pool {
    Pool(const TinyJob& job, const std::string& store, const std::string& listen,
         const Environment& environment = token)
        : process(job.start({"serve", "--store", store, "--listen", listen}, environment)) {
        process->await(" on eyas+");
        process->await("\n");
        const auto said = process->output();
        const auto at = said.find(" on ") + 4;
        address = said.substr(at, said.find('\n', at) - at);
    }
    std::unique_ptr<test::Process> process;
    std::string address;
};

std::vector<std::string> ingest_into(const TinyJob& job, const std::string& store) {
    return {"ingest", "--features", job.path("features"),     "--store",
            store,    "--manifest", job.path("manifest.json")};
}

/// A job of 480 steps, trained colocated, and its samples in a pool on a directory.
struct LongJob {
    TinyJob job = {};
    std::string address = "eyas+unix://" + job.path("socket");
    std::unique_ptr<Pool> pool = {};

    LongJob() {
        job.capture();
        job.run(job.train("colocated", job.colocated(), {"--epochs", "40"}));
        pool = std::make_unique<Pool>(job, job.store(), address);
        job.run(ingest_into(job, address), 0, token);
    }
};
}  // namespace

TEST_CASE("training from a pool, whatever its store and its transport, ends with the same bits") {
    const TinyJob job;
    job.capture();
    job.run(job.train("colocated", job.colocated()));
    int n = 0;
    for (const auto& store : {std::string("memory:pool"), job.store()})
        for (const auto& listen :
             {std::string("eyas+tcp://127.0.0.1:0"), std::string("eyas+ucx://127.0.0.1:0"),
              "eyas+unix://" + job.path("socket")}) {
            const Pool pool(job, store, listen);
            job.run(ingest_into(job, pool.address), 0, token);
            const auto out = "remote" + std::to_string(n++);
            // As from another machine, except over the Unix socket: there the objects are mapped.
            const bool near = listen.starts_with("eyas+unix");
            const auto p =
                job.run(job.train(out, {"--store", pool.address + (near ? "" : "?same_host=0"),
                                        "--manifest", job.path("manifest.json")}),
                        0, token);
            CHECK_THAT(p->output(), Contains("done at step 12"));
            job.run({"compare", job.path(out), job.path("colocated")});
            pool.process->signal(SIGTERM);
            CHECK(pool.process->wait() == 0);
        }
    // What was put into the pool's directory is there without the pool.
    job.run(job.train("directly", job.disaggregated()), 0, token);
    job.run({"compare", job.path("directly"), job.path("colocated")});
}

TEST_CASE("a pool refuses who does not know its token, and strangers where it has none") {
    const TinyJob job;
    job.capture();
    const Pool pool(job, "memory:pool", "eyas+tcp://127.0.0.1:0");
    const auto fails = [&](const Environment& environment, const std::string& what) {
        const auto p = job.run(ingest_into(job, pool.address), 1, environment);
        CHECK_THAT(p->errors(), Contains(what));
        CHECK(std::filesystem::exists(job.path("manifest.json.failed")));
    };
    fails({{"DISAGG_AUTH_TOKEN", "wrong"}}, "the token is not the peer's");
    fails({}, "the peer asks for a token");
    job.run(ingest_into(job, pool.address), 0, token);

    const auto open =
        job.run({"serve", "--store", "memory:x", "--listen", "eyas+tcp://0.0.0.0:0"}, 1);
    CHECK_THAT(open->errors(), Contains("without a token"));
    const auto twice =
        job.run({"serve", "--store", "memory:x", "--listen", pool.address}, 1, token);
    CHECK_THAT(twice->errors(), Contains("cannot listen"));
}

TEST_CASE("a pool that is killed and started again on its directory loses nothing") {
    LongJob long_job;
    auto& [job, address, pool] = long_job;
    const auto trainer = job.start(
        job.train("run",
                  {"--store", address + "?timeout=30", "--manifest", job.path("manifest.json")},
                  {"--epochs", "40", "--log-interval", "5"}),
        token);
    for (const char* step : {"step 5/", "step 100/", "step 200/"}) {
        trainer->await(step);
        pool->process->signal(SIGKILL);
        pool->process->wait();
        pool = std::make_unique<Pool>(job, job.store(), address);
    }
    const int code = trainer->wait();
    INFO(trainer->output() << trainer->errors());
    CHECK(code == 0);
    job.run({"compare", job.path("run"), job.path("colocated")});
}

TEST_CASE("a trainer whose pool is gone ends with an error and resumes when it is back") {
    LongJob long_job;
    auto& [job, address, pool] = long_job;
    const auto words =
        job.train("run", {"--store", address, "--manifest", job.path("manifest.json")},
                  {"--epochs", "40", "--log-interval", "5", "--save-interval", "10"});
    const auto trainer = job.start(words, token);
    trainer->await("step 50/");
    pool->process->signal(SIGKILL);
    pool->process->wait();
    CHECK(trainer->wait() == 1);
    CHECK_THAT(trainer->errors(), Contains("the peer is gone"));
    pool = std::make_unique<Pool>(job, job.store(), address);
    const auto again = job.run(words, 0, token);
    CHECK_THAT(again->output(), Contains("resumed from"));
    job.run({"compare", job.path("run"), job.path("colocated")});
}
