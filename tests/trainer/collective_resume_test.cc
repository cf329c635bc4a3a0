// Checkpoints of several ranks, and runs that go on in a world of another size.
#include "tests/trainer/collective_training.hpp"

using namespace eyas;
using namespace eyas::test;

TEST_CASE("a run goes on in a world of another size: no batch twice, none left out") {
    const auto alone = train(1, {});
    auto expected = alone.ids;
    std::ranges::sort(expected);
    for (const std::int64_t stop : {2, 6, 9})  // within an epoch, at its end, in the next
        for (const int before : {1, 2, 4}) {
            const RunDirectory stopped("stopped");
            auto first = train(before, stopped.path(), stop);
            for (const int after : {1, 2, 4}) {
                const RunDirectory run("resumed");
                std::filesystem::copy(stopped.path(), run.path(),
                                      std::filesystem::copy_options::recursive);
                const auto rest = train(after, run.path());
                auto ids = first.ids;
                ids.insert(ids.end(), rest.ids.begin(), rest.ids.end());
                std::ranges::sort(ids);
                CHECK(ids == expected);
                for (const auto& w : rest.weights) CHECK(w == rest.weights[0]);
                CHECK(furthest(rest.weights[0], alone.weights[0]) <= rounding);
                if (before == after)
                    CHECK(rest.weights == train(before, {}).weights);  // the same bits
            }
        }
}

TEST_CASE("a checkpoint has the same tensors in the same order whoever wrote it") {
    const RunDirectory one("one"), two("two");
    train(1, one.path());
    train(2, two.path());
    for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
        const SafetensorsFile a(one.path() / "checkpoint-12" / file),
            b(two.path() / "checkpoint-12" / file);
        REQUIRE(a.tensors().size() == b.tensors().size());
        for (std::size_t i = 0; i < a.tensors().size(); ++i) {
            const auto &x = a.tensors()[i], &y = b.tensors()[i];
            CHECK(x.name == y.name);
            CHECK(x.tensor.shape == y.tensor.shape);
            if (x.tensor.dtype != DType::F32) continue;
            const auto u = x.tensor.as<float>(), v = y.tensor.as<float>();
            CHECK(furthest({u.begin(), u.end()}, {v.begin(), v.end()}) <= rounding);
        }
    }
}

TEST_CASE("ranks write while training goes on what they would write at once") {
    const RunDirectory at_once("at-once"), meanwhile("meanwhile");
    for (const auto* run : {&at_once, &meanwhile}) {
        ThreadGroup group(3);
        const auto errors = on_ranks(3, [&](int r) {
            FakeModel<F32> model;
            SharedLoader data(36, 1, r, 3);
            auto o = options();
            o.run_dir = run->path();
            o.save_interval = 3;
            o.keep_checkpoints = 0;
            o.async_checkpoints = run == &meanwhile;
            GroupTrainer trainer(model, o, ThreadMember(group, r));
            trainer.run(data, {.on_step = [&](const StepRecord& s) {
                            if (s.step == 4) trainer.save_copy(run->path() / "best");
                        }});
        });
        for (const auto& e : errors) CHECK(text_of(e) == "");
    }
    for (const char* dir :
         {"checkpoint-3", "best/checkpoint-4", "checkpoint-6", "checkpoint-9", "checkpoint-12"})
        for (const char* file : {"model.safetensors", "optimizer.safetensors", "state.json"})
            CHECK((read_text_file(at_once.path() / dir / file) ==
                   read_text_file(meanwhile.path() / dir / file)));
}

TEST_CASE("another number of samples a step or an epoch is refused in another world") {
    const RunDirectory run("other");
    train(2, run.path(), 6);
    const auto refused = [&](std::int64_t accumulation, std::int64_t batches) {
        FakeModel<F32> model;
        auto o = options();
        o.epochs = 2;
        o.accumulation = accumulation;
        o.schedule.total_steps = last_step;
        o.adamw.epsilon = 1;
        o.run_dir = run.path();
        SharedLoader data(batches, 2, 0, 1);
        Trainer trainer(model, o);
        try {
            trainer.run(data);
        } catch (const ContractError& e) {
            return std::string(e.what());
        }
        return std::string();
    };
    CHECK_THAT(refused(2, epoch_batches), Catch::Contains("samples_per_step: saved 4.0, now 2.0"));
    CHECK_THAT(refused(4, epoch_batches + 4),
               Catch::Contains("samples_per_epoch: saved 24.0, now 28.0"));
    CHECK(refused(4, epoch_batches) == "");
}
