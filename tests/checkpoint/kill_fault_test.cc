#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>

#include "eyas/trainer/trainer.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/trainer/fake_model.hpp"

using namespace eyas;
using test::FakeLoader;
using test::FakeModel;
using test::RunDirectory;

namespace {
TrainerOptions options(const std::filesystem::path& run_dir) {
    TrainerOptions o;
    o.schedule.base_rate = 0.05;
    o.epochs = 3;
    o.log_interval = 0;
    o.save_interval = 2;
    o.keep_checkpoints = 2;
    o.run_dir = run_dir;
    return o;
}

// Trains in a child process, where `in_child` may do damage; returns its wait status.
// The child uses no thread pool of the parent: the model is small enough to run serially.
template <class F>
int train_in_child(const TrainerOptions& o, F in_child) {
    const auto pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        int code = 0;
        try {
            FakeModel<F32> m;
            FakeLoader data(20, o.epochs);
            Trainer trainer(m, o);
            trainer.run(data, in_child());
        } catch (const ResourceError&) {
            code = 3;
        } catch (...) {
            code = 4;
        }
        ::_exit(code);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    return status;
}

// Until it is in place; it may have been under way. Throws when it does not come.
void await_checkpoint(const std::filesystem::path& run_dir, std::int64_t step) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!std::filesystem::exists(run_dir / ("checkpoint-" + std::to_string(step)))) {
        if (std::chrono::steady_clock::now() > deadline)
            throw std::runtime_error("no checkpoint of step " + std::to_string(step));
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

std::string final_weights(const std::filesystem::path& run_dir) {
    return read_text_file(run_dir / "checkpoint-60" / "model.safetensors") +
           read_text_file(run_dir / "checkpoint-60" / "optimizer.safetensors");
}
}  // namespace

TEST_CASE("kill -9 at any time, then resume: the weights of the uninterrupted run") {
    const RunDirectory whole("whole"), killed("killed");
    const auto never = [] { return TrainerCallbacks{}; };
    REQUIRE(train_in_child(options(whole.path()), never) == 0);
    std::mt19937 random(17);
    int kills = 0;
    for (int status = 1; status != 0;) {
        const auto after = std::chrono::microseconds(random() % 4000);
        const auto steps = static_cast<std::int64_t>(random() % 12);
        status = train_in_child(options(killed.path()), [&] {
            // A thread kills the process wherever it is then: in a step, in the middle of a
            // checkpoint, between its rename and the removal of an older one.
            TrainerCallbacks callbacks;
            callbacks.on_step = [after, steps, n = std::int64_t{0}](const StepRecord&) mutable {
                if (n++ != steps) return;
                std::thread([after] {
                    std::this_thread::sleep_for(after);
                    ::kill(::getpid(), SIGKILL);
                }).detach();
            };
            return callbacks;
        });
        if (status != 0) {
            REQUIRE(WIFSIGNALED(status));
            CHECK(latest_checkpoint(killed.path()).report.empty());
            REQUIRE(++kills < 200);
        }
    }
    CHECK(kills >= 3);
    CHECK(final_weights(killed.path()) == final_weights(whole.path()));
}

TEST_CASE("a full disk is an error and leaves the last good checkpoint") {
    const RunDirectory run("full");
    const auto status = train_in_child(options(run.path()), [&run] {
        TrainerCallbacks callbacks;
        callbacks.on_step = [&run](const StepRecord& r) {
            if (r.step != 5) return;
            await_checkpoint(run.path(), 4);
            std::signal(SIGXFSZ, SIG_IGN);  // writes past the limit fail as on a full disk
            const rlimit limit{300, 300};
            ::setrlimit(RLIMIT_FSIZE, &limit);
        };
        return callbacks;
    });
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 3);
    const auto latest = latest_checkpoint(run.path());
    REQUIRE(latest.path);
    CHECK(latest.state.step == 4);
    CHECK(latest.report.empty());
    for (const auto& e : std::filesystem::directory_iterator(run.path()))
        CHECK(e.path().filename().string().starts_with("checkpoint-"));  // no half of one
}

TEST_CASE("a run directory that cannot be written is an error") {
    const RunDirectory run("denied");
    eyas::create_directories(run.path());
    std::filesystem::permissions(
        run.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec |
                        std::filesystem::perms::others_read | std::filesystem::perms::others_exec);
    const auto status = train_in_child(options(run.path()), [] {
        if (::geteuid() == 0 && ::seteuid(65534) != 0) ::_exit(5);  // root may write anywhere
        return TrainerCallbacks{};
    });
    REQUIRE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 5) {
        WARN("skipped: this process is root and may not become another user here");
        return;
    }
    CHECK(WEXITSTATUS(status) == 3);
    CHECK(std::filesystem::is_empty(run.path()));
}

TEST_CASE("a run directory that becomes read-only ends the run and keeps what is there") {
    const RunDirectory run("closed");
    const auto status = train_in_child(options(run.path()), [&run] {
        TrainerCallbacks callbacks;
        callbacks.on_step = [&run](const StepRecord& r) {
            if (r.step != 5) return;
            await_checkpoint(run.path(), 4);
            if (::seteuid(65534) != 0) ::_exit(5);  // root may write anywhere
        };
        return callbacks;
    });
    REQUIRE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 5) {
        WARN("skipped: this process is not root and may not become another user here");
        return;
    }
    CHECK(WEXITSTATUS(status) == 3);
    const auto latest = latest_checkpoint(run.path());
    CHECK(latest.state.step == 4);
    CHECK(latest.report.empty());
}

TEST_CASE("two trainers cannot share a run directory; the lock ends with its holder") {
    const RunDirectory run("shared");
    const auto never = [] { return TrainerCallbacks{}; };
    {
        const RunLock mine(run.path());
        const auto status = train_in_child(options(run.path()), never);
        REQUIRE(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == 3);
        CHECK(std::filesystem::is_empty(run.path()));
    }
    CHECK(train_in_child(options(run.path()), never) == 0);
}

TEST_CASE("a run directory that cannot be made is an error") {
    const auto status = train_in_child(options("/proc/self/no-such-directory/run"),
                                       [] { return TrainerCallbacks{}; });
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 3);
}
