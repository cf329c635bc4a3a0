// Checkpoints that a thread writes while training goes on, on a disk that may be slow.
#include <catch2/catch.hpp>
#include <chrono>
#include <future>
#include <mutex>
#include <optional>

#include "eyas/trainer/watchdog.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/trainer/async_checkpoints.hpp"

using namespace eyas;
using namespace eyas::test;

TEMPLATE_TEST_CASE("written meanwhile or at once: the same bytes in every file", "", F32, Bf16) {
    const RunDirectory at_once("at-once"), meanwhile("meanwhile");
    for (const bool async : {false, true}) {
        FakeModel<TestType> m;
        FakeLoader data(20, 2);
        auto o = options((async ? meanwhile : at_once).path(), 3, async);
        o.epochs = 2;
        o.accumulation = 2;
        Trainer trainer(m, o);
        const auto result = trainer.run(data);
        CHECK(result.step == 20);
        CHECK(result.checkpoint->filename() == "checkpoint-20");
        CHECK(acknowledged_in(data) == Steps{3, 6, 9, 12, 15, 18, 20});
    }
    const auto files = files_in(at_once.path());
    CHECK(files.size() == 7 * 4);
    CHECK((files_in(meanwhile.path()) == files));
}

TEST_CASE("training goes on while the disk is slow, and nothing of later steps is in the files") {
    const RunDirectory plain("plain"), slow("slow");
    {
        FakeModel<F32> m;
        FakeLoader data(8, 1);
        Trainer(m, options(plain.path(), 3, false)).run(data);
    }
    FakeModel<F32> m;
    FakeLoader data(8, 1);
    Trainer trainer(m, options(slow.path(), 3));
    std::optional<StoppedDisk> disk(std::in_place);
    Steps saved;
    TrainerCallbacks callbacks;
    callbacks.on_save = [&](const CheckpointRecord& c) {
        CHECK(std::filesystem::exists(c.path / "state.json"));
        saved.push_back(c.step);
        CHECK(acknowledged_in(data).size() + 1 == saved.size());  // on_save, then the loader
    };
    callbacks.on_step = [&](const StepRecord& s) {
        if (s.step == 4) disk->await_writer();  // it is in the middle of the first file
        if (s.step == 5) {
            CHECK(saved.empty());
            CHECK(acknowledged_in(data).empty());
            CHECK(checkpoint_directories(slow.path()).empty());
        }
        if (s.step == 6) disk->go();  // the files of step 3 are made now
    };
    const auto result = trainer.run(data, callbacks);
    CHECK(saved == Steps{3, 6, 8});
    CHECK(acknowledged_in(data) == saved);
    CHECK(data.acknowledged[1].first.batch == 3);
    CHECK((files_in(slow.path()) == files_in(plain.path())));
    CHECK(names_in(slow.path()) ==
          std::vector<std::string>{"checkpoint-3", "checkpoint-6", "checkpoint-8"});
}

TEST_CASE("one checkpoint is under way; the next waits for it, which is told and counted") {
    const RunDirectory run("wait");
    FakeModel<F32> m;
    FakeLoader data(4, 1);
    Trainer trainer(m, options(run.path(), 1));
    StoppedDisk disk;
    auto trained = std::async(std::launch::async, [&] { return trainer.run(data); });
    await(trainer.activity(), waiting_for(1));
    std::promise<std::string> told;
    std::once_flag first;
    const Watchdog watchdog(trainer.activity(), std::chrono::milliseconds(20),
                            [&](const char* stage, std::chrono::milliseconds) {
                                std::call_once(first, [&] { told.set_value(stage); });
                            });
    const auto start = std::chrono::steady_clock::now();
    auto words = told.get_future();
    REQUIRE(words.wait_for(test::patience) == std::future_status::ready);
    CHECK(words.get() == waiting_for(1));
    const std::chrono::duration<double> stood = std::chrono::steady_clock::now() - start;
    disk.go();
    const auto result = trained.get();
    CHECK(result.checkpoint_seconds >= stood.count());
    CHECK(result.checkpoint_seconds <= result.seconds);
    CHECK(acknowledged_in(data) == Steps{1, 2, 3, 4});
}

TEST_CASE("run() returns when the last checkpoint is durable, also when it is stopped") {
    const RunDirectory run("end");
    FakeModel<F32> m;
    FakeLoader data(9, 1);
    Trainer trainer(m, options(run.path(), 4));
    std::optional<StoppedDisk> disk;
    std::atomic<bool> returned = false;
    auto trained = std::async(std::launch::async, [&] {
        TrainerCallbacks callbacks;
        callbacks.on_step = [&](const StepRecord& s) {
            if (s.step == 4) disk.emplace();
            if (s.step == 6) trainer.request_stop();
        };
        auto result = trainer.run(data, callbacks);
        returned = true;
        return result;
    });
    await(trainer.activity(), waiting_for(4));
    CHECK(checkpoint_directories(run.path()).empty());
    CHECK_FALSE(returned);
    disk->go();
    const auto result = trained.get();
    CHECK(result.stopped);
    CHECK(result.step == 6);
    CHECK(result.checkpoint->filename() == "checkpoint-6");
    CHECK(latest_checkpoint(run.path()).state.step == 6);
    CHECK(acknowledged_in(data) == Steps{4, 6});
}

TEST_CASE("the best copy and the checkpoint that is under way do not disturb each other") {
    const RunDirectory run("best");
    FakeModel<F32> m;
    FakeLoader data(9, 1);
    Trainer trainer(m, options(run.path(), 2));
    trainer.run(data, {.on_step = [&](const StepRecord& s) {
                    if (s.step % 3 == 0) trainer.save_copy(run.path() / "best");
                }});
    CHECK(names_in(run.path() / "best") == std::vector<std::string>{"checkpoint-9"});
    CHECK(names_in(run.path()).size() == 5 + 1);
    CHECK((files_in(run.path() / "best/checkpoint-9") == files_in(run.path() / "checkpoint-9")));
}

namespace {
/// A stream whose producer has room for a few batches, and makes no more before those that it made
/// are acknowledged. next() fails where a real one would wait for ever.
class RoomLoader : public FakeLoader {
public:
    explicit RoomLoader(bool tells) : FakeLoader(1000, 1), tells_(tells) {}
    std::int64_t batches_per_epoch() const { return 0; }
    bool at_hand(std::int64_t n) const { return tells_ && position().batch + n <= made(); }
    const Batch* next() {
        if (position().batch == 20) return nullptr;
        if (position().batch == made())
            throw TransportError("waits for ever", "stream", "Acknowledge first");
        return FakeLoader::next();
    }

private:
    std::int64_t made() const {
        return (acknowledged.empty() ? 0 : acknowledged.back().first.batch) + 6;
    }
    bool tells_;
};
static_assert(BatchSource<RoomLoader>);
}  // namespace

TEST_CASE("a producer that waits for room gets it before its samples are waited for") {
    const RunDirectory run("room");
    FakeModel<F32> m;
    RoomLoader data(GENERATE(true, false));
    auto o = options(run.path(), 2);
    o.schedule.total_steps = 10;
    o.accumulation = GENERATE(1, 2);
    Trainer trainer(m, o);
    CHECK(trainer.run(data).step * o.accumulation == 20);
    CHECK(data.acknowledged.back().first.batch == 20);
}
