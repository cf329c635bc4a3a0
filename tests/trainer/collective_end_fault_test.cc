// How a run of several ranks ends: all of them, at the same step, with the reason.
#include <atomic>

#include "tests/trainer/collective_training.hpp"

using namespace eyas;
using namespace eyas::test;

TEST_CASE("a stop or a bad batch on one rank ends all ranks at the same step") {
    FakeModel<F32> a, b;
    ThreadGroup group(2);
    FakeModel<F32>* models[] = {&a, &b};
    SECTION("stop") {
        TrainResult results[2];
        on_both([&](int r) {
            FakeLoader data(10, 1);
            GroupTrainer trainer(*models[r], options(), ThreadMember(group, r));
            results[r] = trainer.run(data, {.on_step = [&](const StepRecord& s) {
                                         if (r == 1 && s.step == 3) trainer.request_stop();
                                     }});
        });
        for (const auto& result : results) {
            CHECK(result.step == 3);
            CHECK(result.stopped);
        }
    }
    SECTION("bad batch") {
        const auto errors = on_both([&](int r) {
            FakeLoader data(10, 1);
            if (r == 1) data.poison_epoch = 0, data.poison_batch = 2;
            GroupTrainer trainer(*models[r], options(), ThreadMember(group, r));
            trainer.run(data);
        });
        CHECK_THAT(errors[0], Catch::Contains("another rank"));
        CHECK_THAT(errors[1], Catch::Contains("e0b2s0"));
    }
}

TEST_CASE("a rank that fails in the middle of a backward ends the others, which are told") {
    for (const int bad : {0, 1}) {
        ThreadGroup group(3);
        const auto errors = on_ranks(3, [&](int r) {
            TellingModel model;
            int steps = 0;
            model.between = [&] {
                if (r == bad && ++steps == 3) throw DataError("torn in two", "test", "Mend it");
            };
            FakeLoader data(10, 1, static_cast<std::uint32_t>(100 * r));
            TellingTrainer trainer(model, options(), ThreadMember(group, r));
            trainer.run(data);
        });
        for (int r = 0; r < 3; ++r) {
            const auto& e = errors[static_cast<std::size_t>(r)];
            CHECK((r == bad ? is_a<DataError>(e) : is_a<TransportError>(e)));
        }
    }
}

namespace {
/// A stream that is over, or whose producer is silent, after `length` batches.
class OpenLoader : public FakeLoader {
public:
    OpenLoader(std::int64_t batches, std::uint32_t seed)
        : FakeLoader(1000, 1, seed), length(batches) {}
    std::int64_t batches_per_epoch() const { return 0; }
    const Batch* next() {
        if (position().batch < length) return FakeLoader::next();
        if (silent) throw TransportError("no new sample came", "stream", "Check the producer");
        return nullptr;
    }
    std::int64_t length;
    bool silent = false;
};
}  // namespace

TEST_CASE("when data end on one rank, in the middle of a step, all end before that step") {
    const bool silent = GENERATE(false, true);
    for (const std::int64_t missing : {1, 2, 3, 4}) {  // batches of the third step
        ThreadGroup group(2);
        TrainResult results[2];
        std::vector<float> ends[2];
        std::int64_t steps[2], positions[2];
        const auto errors = on_ranks(2, [&](int r) {
            TellingModel model;
            OpenLoader data(r == 0 ? 1000 : 12 - missing, static_cast<std::uint32_t>(100 * r));
            data.silent = silent;
            auto o = options();
            o.accumulation = 4;
            o.schedule.total_steps = 10;
            TellingTrainer trainer(model, o, ThreadMember(group, r));
            std::exception_ptr error;
            try {
                results[r] = trainer.run(data);
            } catch (...) {
                error = std::current_exception();
            }
            steps[r] = trainer.step();
            positions[r] = data.position().batch;
            ends[r] = weights<F32>(model);
            if (error) std::rethrow_exception(error);
        });
        CHECK(ends[0] == ends[1]);
        for (int r = 0; r < 2; ++r) {
            CHECK(steps[r] == 2);
            CHECK(positions[r] == 8);
            if (silent) {
                CHECK(is_a<TransportError>(errors[static_cast<std::size_t>(r)]));
                continue;
            }
            CHECK(text_of(errors[static_cast<std::size_t>(r)]) == "");
            CHECK(results[r].step == 2);
            CHECK(results[r].left_over == (r == 0 ? 4 : 4 - missing));
        }
    }
}

TEST_CASE("ranks that would go on from different checkpoints all say so") {
    const RunDirectory here("here"), there("there");
    train(2, here.path(), 3);
    std::filesystem::copy(here.path(), there.path(), std::filesystem::copy_options::recursive);
    std::string said;
    SECTION("one sees a newer one") {
        train(2, there.path(), 6);
        said = "rank 1 would go on from checkpoint 6";
    }
    SECTION("one sees none") {
        std::filesystem::remove_all(there.path());
        said = "rank 1 would go on from no checkpoint";
    }
    SECTION("one sees another run's") {
        std::filesystem::remove_all(there.path());
        train(1, there.path(), 3);
        said = "rank 1 would go on from checkpoint 3";
    }
    SECTION("one sees only damage") {
        std::filesystem::resize_file(there.path() / "checkpoint-3" / "model.safetensors", 10);
        said = "no checkpoint here is good";
    }
    ThreadGroup group(2);
    const auto errors = on_ranks(2, [&](int r) {
        FakeModel<F32> model;
        auto o = options();
        o.epochs = 2;
        o.accumulation = 2;
        o.schedule.total_steps = last_step;
        o.adamw.epsilon = 1;
        o.run_dir = r == 0 ? here.path() : there.path();
        SharedLoader data(epoch_batches, 2, r, 2);
        GroupTrainer trainer(model, o, ThreadMember(group, r));
        trainer.run(data);
    });
    CHECK(is_a<ContractError>(errors[0]));
    CHECK((is_a<ContractError>(errors[1]) || is_a<DataError>(errors[1])));
    CHECK_THAT(text_of(errors[1]), Catch::Contains(said));
}

TEST_CASE("a checkpoint or a copy that rank 0 cannot write is an error on every rank") {
    const bool copy = GENERATE(false, true);
    const RunDirectory run("refused");
    eyas::create_directories(run.path());
    write_text_file(run.path() / "file", "no directory");
    ThreadGroup group(3);
    std::atomic<int> steps = 0;
    const auto errors = on_ranks(3, [&](int r) {
        FakeModel<F32> model;
        FakeLoader data(6, 1, static_cast<std::uint32_t>(100 * r));
        auto o = options();
        o.run_dir = run.path() / "run";
        o.save_interval = copy ? 0 : 2;
        o.async_checkpoints = false;
        GroupTrainer trainer(model, o, ThreadMember(group, r));
        trainer.run(data, {.on_step =
                               [&](const StepRecord& s) {
                                   ++steps;
                                   if (s.step == 2 && copy)
                                       trainer.save_copy(run.path() / "file" / "best");
                               },
                           .on_save =
                               [&](const CheckpointRecord&) {
                                   throw ResourceError("no room", "test", "Make some");
                               }});
    });
    CHECK(steps == 6);
    for (const auto& e : errors) CHECK(is_a<ResourceError>(e));
    CHECK_THAT(text_of(errors[2]), Catch::Contains("rank 0 could not write checkpoint 2"));
}
