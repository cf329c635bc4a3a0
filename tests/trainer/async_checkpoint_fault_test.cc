// Checkpoints that a thread writes while training goes on, on a disk that is full, or beside
// training that fails.
#include <catch2/catch.hpp>
#include <fstream>
#include <future>
#include <optional>
#include <stdexcept>

#include "tests/checkpoint/run_directory.hpp"
#include "tests/collective/thread_group.hpp"
#include "tests/trainer/async_checkpoints.hpp"

using namespace eyas;
using namespace eyas::test;
using Catch::Matchers::Contains;

namespace {
/// Bytes after which a checkpoint of FakeModel is in the middle of its optimizer's file. Writes one
/// to know.
std::uint64_t in_second_file() {
    static const auto bytes = [] {
        const RunDirectory run("sizes");
        FakeModel<F32> m;
        FakeLoader data(1, 1);
        const auto dir = *Trainer(m, options(run.path(), 0)).run(data).checkpoint;
        return std::filesystem::file_size(dir / "model.safetensors") +
               std::filesystem::file_size(dir / "optimizer.safetensors") / 2;
    }();
    return bytes;
}
}  // namespace

TEST_CASE("a disk that is full ends the run by the next save, and the last good one stays") {
    const auto room = in_second_file();
    const RunDirectory run("full"), whole("whole");
    FakeModel<F32> m, other;
    FakeLoader data(12, 1), again(12, 1);
    Trainer trainer(m, options(run.path(), 2));
    std::optional<FullDisk> disk;
    Steps saved;
    TrainerCallbacks callbacks;
    callbacks.on_step = [&](const StepRecord& s) {
        if (s.step == 6) disk.emplace(room);
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
    const auto room = in_second_file();
    const RunDirectory run("full-end");
    FakeModel<F32> m;
    FakeLoader data(6, 1);
    Trainer trainer(m, options(run.path(), 5));
    std::optional<FullDisk> disk;
    const auto fill_at = GENERATE(5, 6);  // the one under way at the end, the last one
    CHECK_THROWS_AS(trainer.run(data, {.on_step =
                                           [&](const StepRecord& s) {
                                               if (s.step == fill_at) disk.emplace(room);
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
    const auto room = in_second_file();
    const RunDirectory run("both");
    FakeModel<F32> m;
    FakeLoader data(10, 1);
    Trainer trainer(m, options(run.path(), 4));
    std::optional<FullDisk> full;
    const auto train = [&](StoppedDisk& disk, auto fail) {
        TrainerCallbacks callbacks;
        callbacks.on_step = [&, fail](const StepRecord& s) {
            if (s.step == 4) full.emplace(room);
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

TEST_CASE("two ranks settle a checkpoint at the same step, and a full disk ends both") {
    const auto room = in_second_file();
    const RunDirectory run("ranks");
    ThreadGroup group(2);
    FakeModel<F32> a, b;
    FakeModel<F32>* models[] = {&a, &b};
    FakeLoader loaders[] = {FakeLoader(20, 1, 100), FakeLoader(20, 1, 200)};
    std::optional<StoppedDisk> stopped;
    std::optional<FullDisk> full;
    Steps seen[2];  // for each step, what was acknowledged by then
    std::int64_t reached[2] = {0, 0};
    const auto errors = test::on_both([&](int r) {
        Trainer<FakeModel<F32>, ThreadMember> trainer(*models[r], options(run.path(), 4),
                                                      ThreadMember(group, r));
        auto& data = loaders[r];
        TrainerCallbacks callbacks;
        callbacks.on_step = [&](const StepRecord& s) {
            seen[r].push_back(static_cast<std::int64_t>(acknowledged_in(data).size()));
            if (r != 0) return;
            if (s.step == 4) stopped.emplace();
            if (s.step == 6) stopped->go();
            if (s.step == 12) full.emplace(room);
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

TEST_CASE("a copy that rank 0 cannot write is an error on both") {
    const RunDirectory run("ranks-copy");
    ThreadGroup group(2);
    FakeModel<F32> a, b;
    FakeModel<F32>* models[] = {&a, &b};
    FakeLoader loaders[] = {FakeLoader(4, 1, 100), FakeLoader(4, 1, 200)};
    std::ofstream(run.path()) << "a file where a directory is wanted";
    const auto errors = on_both([&](int r) {
        Trainer<FakeModel<F32>, ThreadMember> trainer(*models[r], options("", 0),
                                                      ThreadMember(group, r));
        trainer.run(loaders[r], {.on_step = [&](const StepRecord& s) {
                        if (s.step == 2) trainer.save_copy(run.path() / "best");
                    }});
    });
    CHECK_FALSE(errors[0].empty());
    CHECK_THAT(errors[1], Contains("rank 0 could not write checkpoint 2"));
}
