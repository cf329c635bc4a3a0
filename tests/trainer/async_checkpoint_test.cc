// Checkpoints that a thread writes while training goes on, on a disk that is slow or full.
#include <catch2/catch.hpp>
#include <chrono>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "eyas/trainer/trainer.hpp"
#include "eyas/trainer/watchdog.hpp"
#include "tests/checkpoint/disk.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/collective/thread_group.hpp"
#include "tests/trainer/fake_model.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::FakeLoader;
using test::FakeModel;
using test::FullDisk;
using test::RunDirectory;
using test::StoppedDisk;

namespace {
TrainerOptions options(const std::filesystem::path& run_dir, std::int64_t save_interval,
                       bool async = true) {
    TrainerOptions o;
    o.schedule.base_rate = 0.05;
    o.log_interval = 4;
    o.save_interval = save_interval;
    o.keep_checkpoints = 0;
    o.run_dir = run_dir;
    o.async_checkpoints = async;
    return o;
}

// Bytes after which a checkpoint of FakeModel is in the middle of its optimizer's file.
constexpr std::uint64_t in_second_file = 1500;

/// Every file in a directory, by its path from there.
std::map<std::string, std::string> files_in(const std::filesystem::path& dir) {
    std::map<std::string, std::string> all;
    for (const auto& e : std::filesystem::recursive_directory_iterator(dir))
        if (e.is_regular_file())
            all[std::filesystem::relative(e.path(), dir).string()] = read_text_file(e.path());
    return all;
}

std::vector<std::string> names_in(const std::filesystem::path& dir) {
    std::vector<std::string> names;
    for (const auto& e : std::filesystem::directory_iterator(dir))
        names.push_back(e.path().filename().string());
    std::ranges::sort(names);
    return names;
}

using Steps = std::vector<std::int64_t>;
/// The steps that were acknowledged, but for the nothing that a run acknowledges when it begins.
Steps acknowledged_in(const FakeLoader& loader) {
    Steps steps;
    for (const auto& a : loader.acknowledged)
        if (a.second > 0) steps.push_back(a.second);
    return steps;
}

/// Waits until somebody in `activity` does what `text` says; throws when nobody ever does.
void await(const Activity& activity, const std::string& text) {
    const auto deadline = std::chrono::steady_clock::now() + test::patience;
    while (activity.seen().text() != text) {
        if (std::chrono::steady_clock::now() > deadline)
            throw std::runtime_error("nobody was ever " + text);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}
std::string waiting_for(std::int64_t step) {
    return "waiting for the checkpoint of step " + std::to_string(step) + " to reach the disk";
}
}  // namespace

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

TEST_CASE("a disk that is full ends the run by the next save, and the last good one stays") {
    const RunDirectory run("full"), whole("whole");
    FakeModel<F32> m, other;
    FakeLoader data(12, 1), again(12, 1);
    Trainer trainer(m, options(run.path(), 2));
    std::optional<FullDisk> disk;
    Steps saved;
    TrainerCallbacks callbacks;
    callbacks.on_step = [&](const StepRecord& s) {
        if (s.step == 6) disk.emplace(in_second_file);
    };
    callbacks.on_save = [&](const CheckpointRecord& c) { saved.push_back(c.step); };
    CHECK_THROWS_MATCHES(trainer.run(data, callbacks), ResourceError,
                         Catch::Predicate<ResourceError>(
                             [](const ResourceError& e) {
                                 const std::string text = e.what();
                                 return text.find("No space left") != text.npos &&
                                        text.find("Free some space") != text.npos;
                             },
                             "says what to do"));
    CHECK(trainer.step() >= 6);
    CHECK(trainer.step() <= 8);
    // Step 4's may have been under way when the disk became full, but was begun two steps before.
    CHECK((saved == Steps{2, 4} || saved == Steps{2}));
    CHECK(acknowledged_in(data) == saved);
    const auto latest = latest_checkpoint(run.path());
    CHECK(latest.state.step == saved.back());
    CHECK(latest.report.empty());
    for (const auto& name : names_in(run.path())) CHECK_THAT(name, !Contains("discard"));
    // With room again it goes on from where it stands, to the same end.
    disk.reset();
    CHECK(trainer.run(data).step == 12);
    CHECK(acknowledged_in(data).back() == 12);
    Trainer(other, options(whole.path(), 2)).run(again);
    CHECK((files_in(run.path() / "checkpoint-12") == files_in(whole.path() / "checkpoint-12")));
}

TEST_CASE("a failure at the very end is thrown, too") {
    const RunDirectory run("full-end");
    FakeModel<F32> m;
    FakeLoader data(6, 1);
    Trainer trainer(m, options(run.path(), 5));
    std::optional<FullDisk> disk;
    const auto fill_at = GENERATE(5, 6);  // the one under way at the end, the last one
    CHECK_THROWS_AS(trainer.run(data, {.on_step =
                                           [&](const StepRecord& s) {
                                               if (s.step == fill_at) disk.emplace(in_second_file);
                                           }}),
                    ResourceError);
    CHECK(trainer.step() >= 5);
    CHECK(acknowledged_in(data).size() <= 1);
}

namespace {
/// A run whose training fails when the checkpoint of step 4 is at the disk, which stands still
/// until run() waits for it.
template <class Run>
void fail_with_one_under_way(Trainer<FakeModel<F32>>& trainer, Run run) {
    StoppedDisk disk;
    auto later = std::async(std::launch::async, [&] {
        await(trainer.activity(), waiting_for(4));
        disk.go();
    });
    run(disk);
    later.get();
    CHECK(trainer.step() >= 4);
}
}  // namespace

TEST_CASE("training that fails while a checkpoint is under way leaves that one whole") {
    const RunDirectory run("failed");
    FakeModel<F32> m;
    FakeLoader data(10, 1);
    Trainer trainer(m, options(run.path(), 4));
    SECTION("by its data") {
        data.poison_epoch = 0;
        data.poison_batch = 5;
        fail_with_one_under_way(trainer,
                                [&](auto&) { CHECK_THROWS_AS(trainer.run(data), DataError); });
    }
    SECTION("by a callback") {
        const TrainerCallbacks callbacks{.on_step = [](const StepRecord& s) {
            if (s.step == 6) throw std::logic_error("of the caller");
        }};
        fail_with_one_under_way(trainer, [&](auto&) {
            CHECK_THROWS_AS(trainer.run(data, callbacks), std::logic_error);
        });
    }
    CHECK(names_in(run.path()) == std::vector<std::string>{"checkpoint-4"});
    CHECK(latest_checkpoint(run.path()).report.empty());
    CHECK(acknowledged_in(data).empty());
    // The next one, in the same directory, goes on from it and acknowledges what it contains.
    FakeModel<F32> next;
    FakeLoader rest(10, 1);
    Trainer again(next, options(run.path(), 4));
    CHECK(again.run(rest).steps == 6);
    CHECK(acknowledged_in(rest) == Steps{4, 8, 10});
}

TEST_CASE("training and the disk that fail together: training's error, and no half checkpoint") {
    const RunDirectory run("both");
    FakeModel<F32> m;
    FakeLoader data(10, 1);
    Trainer trainer(m, options(run.path(), 4));
    std::optional<FullDisk> full;
    const auto train = [&](StoppedDisk& disk, auto fail) {
        TrainerCallbacks callbacks;
        callbacks.on_step = [&, fail](const StepRecord& s) {
            if (s.step == 4) full.emplace(in_second_file);
            if (s.step != 5) return;
            disk.await_writer();
            fail();
        };
        trainer.run(data, callbacks);
    };
    SECTION("one of ours tells what the disk did, too") {
        fail_with_one_under_way(trainer, [&](StoppedDisk& disk) {
            CHECK_THROWS_MATCHES(
                train(disk, [] { throw DataError("is bad", "sample", "Leave it out"); }), DataError,
                Catch::Predicate<DataError>(
                    [](const DataError& e) {
                        const std::string text = e.what();
                        return text.starts_with("sample: is bad. Leave it out. ") &&
                               text.find("checkpoint 4") != text.npos &&
                               text.find("No space left") != text.npos;
                    },
                    "tells both"));
        });
    }
    SECTION("the caller's own goes on as it is") {
        fail_with_one_under_way(trainer, [&](StoppedDisk& disk) {
            CHECK_THROWS_AS(train(disk, [] { throw std::logic_error("of the caller"); }),
                            std::logic_error);
        });
    }
    CHECK(std::filesystem::is_empty(run.path()));
    CHECK(acknowledged_in(data).empty());
}

TEST_CASE("what on_save throws ends the run, and nothing of it is acknowledged") {
    const RunDirectory run("on-save");
    FakeModel<F32> m;
    FakeLoader data(10, 1);
    Trainer trainer(m, options(run.path(), 3));
    CHECK_THROWS_AS(
        trainer.run(
            data,
            {.on_save = [](const CheckpointRecord&) { throw std::logic_error("of the caller"); }}),
        std::logic_error);
    CHECK(acknowledged_in(data).empty());
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

TEST_CASE("two ranks settle a checkpoint at the same step, and a full disk ends both") {
    const RunDirectory run("ranks");
    test::ThreadGroup group(2);
    FakeModel<F32> a, b;
    FakeModel<F32>* models[] = {&a, &b};
    FakeLoader loaders[] = {FakeLoader(20, 1, 100), FakeLoader(20, 1, 200)};
    std::optional<StoppedDisk> stopped;
    std::optional<FullDisk> full;
    Steps seen[2];  // for each step, what was acknowledged by then
    std::int64_t reached[2] = {0, 0};
    const auto errors = test::on_both([&](int r) {
        Trainer<FakeModel<F32>, test::ThreadMember> trainer(*models[r], options(run.path(), 4),
                                                            test::ThreadMember(group, r));
        auto& data = loaders[r];
        TrainerCallbacks callbacks;
        callbacks.on_step = [&](const StepRecord& s) {
            seen[r].push_back(static_cast<std::int64_t>(acknowledged_in(data).size()));
            if (r != 0) return;
            if (s.step == 4) stopped.emplace();
            if (s.step == 6) stopped->go();
            if (s.step == 12) full.emplace(in_second_file);
        };
        const auto at_end = [&] { reached[r] = trainer.step(); };
        try {
            trainer.run(data, callbacks);
        } catch (...) {
            at_end();
            throw;
        }
        at_end();
    });
    CHECK_THAT(errors[0], Contains("No space left"));
    CHECK_THAT(errors[1], Contains("rank 0 could not write checkpoint") &&
                              Contains("See the message of the rank that failed"));
    CHECK(seen[0] == seen[1]);
    CHECK(seen[0][5] == 0);
    CHECK(acknowledged_in(loaders[0]) == acknowledged_in(loaders[1]));
    CHECK(reached[0] == reached[1]);
    CHECK(reached[0] >= 12);
    CHECK(reached[0] <= 16);
    CHECK(latest_checkpoint(run.path()).state.step == acknowledged_in(loaders[0]).back());
}
