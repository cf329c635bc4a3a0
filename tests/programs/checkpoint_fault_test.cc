// Checkpoints that are written while training goes on, in a real training: kills at any moment, a
// disk that is full, signals.
#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <random>
#include <thread>

#include "eyas/checkpoint/state.hpp"
#include "tests/programs/tiny_job.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::TinyJob;

namespace {
constexpr std::int64_t save_interval = 3, last_step = 300;

std::vector<std::string> often_saved(const TinyJob& job, const std::string& out,
                                     const std::vector<std::string>& more = {},
                                     std::int64_t log_interval = 1) {
    std::vector<std::string> words{"--epochs",        "50",
                                   "--max-steps",     std::to_string(last_step),
                                   "--log-interval",  std::to_string(log_interval),
                                   "--save-interval", std::to_string(save_interval),
                                   "--keep",          "2"};
    words.insert(words.end(), more.begin(), more.end());
    return job.train(out, job.colocated(), words);
}

void check_same(const TinyJob& job, const std::string& a, const std::string& b) {
    CHECK_THAT(job.run({"compare", job.path(a), job.path(b)})->output(), Contains("identical"));
}

/// The step of the newest checkpoint; all that are there are whole.
std::int64_t newest(const std::string& run) {
    const auto latest = latest_checkpoint(run);
    CHECK(latest.report.empty());
    return latest.path ? latest.state.step : 0;
}

/// Whether a checkpoint is being written there, or was when its writer died.
bool half_written(const std::string& run) {
    std::error_code e;
    for (const auto& entry : std::filesystem::directory_iterator(run, e))
        if (entry.path().filename().string().starts_with(".eyas-discard-new-")) return true;
    return false;
}

/// The number after the last `word` in `text`.
std::int64_t last_number(const std::string& text, const std::string& word) {
    const auto at = text.rfind(word);
    return at == text.npos ? 0 : std::atoll(text.c_str() + at + word.size());
}

/// Trainings that are killed and go on; one that reaches its end is compared and another begun.
class Killed {
public:
    Killed(const TinyJob& job, unsigned seed) : job_(job), random_(seed) {}

    int kills() const { return kills_; }
    int inside() const { return inside_; }  // kills while a checkpoint was being written

    /// At a random moment after the first step of this life.
    void kill_any_time() {
        life([&](test::Process& p) {
            p.await("\nstep ");
            std::this_thread::sleep_for(std::chrono::microseconds(random_() % 40'000));
        });
    }
    /// A random moment after a checkpoint was begun.
    void kill_in_a_write() {
        life([&](test::Process& p) {
            p.await("\nstep ");
            const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
            while (!half_written(run()) && std::chrono::steady_clock::now() < deadline) {
            }
            std::this_thread::sleep_for(std::chrono::microseconds(random_() % 1000));
        });
    }
    void to_the_end() {
        const auto p = job_.run(often_saved(job_, name()));
        check_resumed(*p);
        check_same(job_, "whole", name());
    }

private:
    std::string name() const { return "killed-" + std::to_string(round_); }
    std::string run() const { return job_.path(name()); }

    template <class Moment>
    void life(Moment moment) {
        const auto before = newest(run());
        auto p = job_.start(often_saved(job_, name()));
        moment(*p);
        p->signal(SIGKILL);
        const int code = p->wait();
        INFO(p->output() << p->errors());
        check_resumed(*p);
        const auto there = newest(run());
        CHECK(there >= before);
        if (code == 0) {  // it was faster
            check_same(job_, "whole", name());
            ++round_;
            reached_ = 0;
            return;
        }
        REQUIRE(code == -SIGKILL);
        ++kills_;
        inside_ += half_written(run());
        // One checkpoint may be under way, so the steps since the one before it come again.
        reached_ = std::max(reached_, last_number(p->output(), "\nstep "));
        CHECK(reached_ - there <= 2 * save_interval);
    }

    /// It went on from the newest checkpoint there was.
    void check_resumed(const test::Process& p) {
        const auto from = last_number(p.output(), "/checkpoint-");
        if (p.output().find("resumed from") == std::string::npos) return;
        CHECK(from % save_interval == 0);
        CHECK(reached_ - from <= 2 * save_interval);
        reached_ = from;
    }

    const TinyJob& job_;
    std::mt19937 random_;
    int kills_ = 0, inside_ = 0, round_ = 0;
    std::int64_t reached_ = 0;  // by the life before
};
}  // namespace

TEST_CASE("kill -9 at fifty moments, also inside a checkpoint's writing: the same weights") {
    const TinyJob job;
    job.capture();
    job.run(often_saved(job, "whole", {"--no-async-checkpoints"}));
    Killed killed(job, 29);
    for (int lives = 0; killed.kills() < 50; lives += 2) {
        REQUIRE(lives < 200);  // else they reach their ends before they are killed
        killed.kill_any_time();
        killed.kill_in_a_write();
    }
    CHECK(killed.inside() > 0);
    killed.to_the_end();
}

TEST_CASE("SIGINT and SIGTERM end when the checkpoint of the last step is on disk") {
    const TinyJob job;
    job.capture();
    job.run(often_saved(job, "whole"));
    for (const int signal : {SIGINT, SIGTERM}) {
        const auto out = "stopped-" + std::to_string(signal);
        for (const char* at : {"\nstep 31/", "\nstep 212/"}) {
            auto p = job.start(often_saved(job, out));
            p->await(at);
            p->signal(signal);
            CHECK(p->wait() == 1);
            const auto stopped = last_number(p->output(), "to go on) at step ");
            CHECK(stopped > 0);
            CHECK(newest(job.path(out)) == stopped);
            CHECK_FALSE(half_written(job.path(out)));
        }
        job.run(often_saved(job, out));
        check_same(job, "whole", out);
    }
}

TEST_CASE("a disk that becomes full ends training with what to do; with room it goes on") {
    const TinyJob job;
    job.capture();
    job.run(often_saved(job, "whole"));
    // Files may not grow past a size from some step on: the weights fit, their optimizer's state
    // does not. A write past the limit fails as on a full disk where the signal for it is ignored.
    const auto words = often_saved(job, "full", {}, 50);
    std::string command = "trap '' XFSZ; exec examples/cli/eyas";
    for (const auto& w : words) command += " '" + w + "'";
    const auto p = job.start({"-c", command}, {}, "/bin/sh");
    p->await("\nstep 100/");
    const auto size = [&](const char* file) {
        return std::filesystem::file_size(job.path("whole/checkpoint-") +
                                          std::to_string(last_step) + "/" + file);
    };
    const auto room = (size("model.safetensors") + size("optimizer.safetensors")) / 2;
    REQUIRE(size("model.safetensors") < room);
    const rlimit limit{room, room};
    REQUIRE(::prlimit(p->id(), RLIMIT_FSIZE, &limit, nullptr) == 0);
    CHECK(p->wait() == 1);
    CHECK_THAT(p->errors(), Contains("optimizer.safetensors: cannot write: File too large"));
    const auto good = newest(job.path("full"));
    CHECK(good >= 96);
    CHECK_FALSE(half_written(job.path("full")));
    const auto again = job.run(often_saved(job, "full"));
    CHECK(last_number(again->output(), "/full/checkpoint-") == last_step);
    CHECK_THAT(again->output(), Contains("/full/checkpoint-" + std::to_string(good)));
    check_same(job, "whole", "full");
}

TEST_CASE("the plan and the result tell what checkpoints cost, and the bytes are the same") {
    const TinyJob job;
    job.capture();
    const auto train = [&](const std::string& out, const std::vector<std::string>& more) {
        std::vector<std::string> words{"--max-steps", "8", "--keep", "0", "--json"};
        words.insert(words.end(), more.begin(), more.end());
        return job.run(job.train(out, job.colocated(), words));
    };
    const auto meanwhile = train("a", {"--save-interval", "2"}),
               at_once = train("b", {"--save-interval", "2", "--no-async-checkpoints"}),
               last_only = train("c", {});
    const auto part = Contains("checkpoint: copy of weights and optimizer");
    CHECK_THAT(meanwhile->output(), part);
    CHECK_THAT(at_once->output(), !part);
    CHECK_THAT(last_only->output(), !part);
    for (const auto* p : {&meanwhile, &at_once, &last_only}) {
        const auto result = Json::parse((*p)->last_line());
        CHECK(result["checkpoint_seconds"] > 0);
        CHECK(result["checkpoint_seconds"] < result["seconds"]);
    }
    for (const char* step : {"2", "4", "6", "8"})
        for (const char* file : {"model.safetensors", "optimizer.safetensors", "state.json"}) {
            const auto name = std::string("/checkpoint-") + step + "/" + file;
            CHECK((read_text_file(job.path("a") + name) == read_text_file(job.path("b") + name)));
        }
}
