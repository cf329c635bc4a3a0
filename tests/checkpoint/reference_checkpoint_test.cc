#include "eyas/checkpoint/reference_checkpoint.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

#include "eyas/trainer/trainer.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/trainer/fake_model.hpp"

using namespace eyas;
using test::FakeLoader;
using test::FakeModel;
using test::RunDirectory;

namespace {
const std::filesystem::path golden = "tests/checkpoint/testdata/reference_run";

template <class M>
CheckpointContent content_of(M& m, AdamW<Cpu>& adam) {
    return {m.parameters(), m.vocab_map(), m.config(), adam.state()};
}

TrainerOptions options(const std::filesystem::path& run_dir) {
    TrainerOptions o;
    o.schedule.base_rate = 0.05;
    o.schedule.total_steps = 10;
    o.schedule.warmup_ratio = 0.2;
    o.max_steps = 5;
    o.epochs = 2;
    o.run_dir = run_dir;
    o.identity["data"] = {{"batch_size", 2}, {"samples", 8}};
    return o;
}
}  // namespace

TEST_CASE("a checkpoint of the reference is read bit for bit") {
    FakeModel<Bf16> m;
    AdamW<Cpu> adam(m.device(), m.parameters());
    const auto s = read_reference_checkpoint(golden / "golden-step3", content_of(m, adam));
    CHECK(s.global_step == 3);
    CHECK(s.epoch == 1);
    CHECK(s.epoch_batch == 2);
    CHECK(s.epoch_samples == 4);
    CHECK(s.world_size == 1);
    CHECK(s.strategy == "eagle3");
    CHECK(s.run_id == "golden");
    CHECK(s.has_optimizer);
    const SafetensorsFile expected(golden / "expected.safetensors");
    for (const auto& p : m.parameters())
        CHECK(std::ranges::equal(expected.at("value." + p.name).bytes(), p.value.bytes()));
    for (const auto& b : adam.state())
        CHECK(std::ranges::equal(expected.at(b.name).bytes(), b.buffer.bytes()));
}

TEST_CASE("what is written as the reference's comes back the same") {
    const RunDirectory run("ours"), out("theirs");
    FakeModel<F32> m, again(9);
    FakeLoader data(4, 2);
    Trainer trainer(m, options(run.path()));
    trainer.run(data);
    const auto dir = write_reference_checkpoint(out.path(), run.path() / "checkpoint-5", "draft");
    CHECK(dir == out.path() / "draft-step5");
    CHECK(std::filesystem::read_symlink(out.path() / "draft-latest") == "draft-step5");
    AdamW<Cpu> adam(again.device(), again.parameters());
    const auto s = read_reference_checkpoint(out.path() / "draft-latest", content_of(again, adam));
    CHECK(s.global_step == 5);
    CHECK(s.epoch == 1);
    CHECK(s.epoch_batch == 1);
    CHECK(s.epoch_samples == 2);
    CHECK(s.run_id == "draft");
    for (std::size_t i = 0; i < 3; ++i)
        CHECK(std::ranges::equal(m.parameters()[i].value.bytes(),
                                 again.parameters()[i].value.bytes()));
    const auto a = trainer.optimizer().state(), b = adam.state();
    for (std::size_t i = 0; i < a.size(); ++i)
        CHECK(std::ranges::equal(a[i].buffer.bytes(), b[i].buffer.bytes()));
}

TEST_CASE("the scheduler's counters are those that torch would have") {
    const RunDirectory run("counters"), out("counters-out");
    FakeModel<F32> m;
    FakeLoader data(4, 2);
    Trainer trainer(m, options(run.path()));
    trainer.run(data);
    write_reference_checkpoint(out.path(), run.path() / "checkpoint-5");
    const TorchFile rank(out.path() / "eyas-step5" / "training_state_rank0.pt");
    const auto& optimizer = rank.root().at("optimizer", "rank");
    const auto& scheduler = optimizer.at("scheduler_state_dict", "optimizer");
    const auto integer = [](const PickleValue& v, const char* key) {
        return v.at(key, "scheduler").require<std::int64_t>(key);
    };
    // W = 2 of S = 10: two steps of the warm-up, three of the cosine behind it.
    CHECK(integer(scheduler, "warmup_epochs") == 2);
    CHECK(integer(scheduler, "last_epoch") == 2);
    CHECK(integer(scheduler, "_step_count") == 3);
    CHECK(scheduler.at("finished", "scheduler").require<bool>("finished"));
    const auto& after = scheduler.at("after_scheduler_dict", "scheduler");
    CHECK(integer(after, "T_max") == 8);
    CHECK(integer(after, "last_epoch") == 3);
    CHECK(integer(after, "_step_count") == 4);
    const auto& group =
        optimizer.at("optimizer_state_dict", "").at("param_groups", "").require<PickleList>("")[0];
    const Schedule schedule({.base_rate = 0.05, .total_steps = 10, .warmup_ratio = 0.2});
    CHECK(group.at("lr", "group").require<double>("lr") == schedule.rate(5));
}

TEST_CASE("what cannot be carried over is refused") {
    const RunDirectory run("refused"), out("refused-out");
    FakeModel<F32> m;
    FakeLoader data(4, 2);
    auto o = options(run.path());
    o.schedule.kind = ScheduleKind::Wsd;
    Trainer trainer(m, o);
    trainer.run(data);
    CHECK_THROWS_WITH(write_reference_checkpoint(out.path(), run.path() / "checkpoint-5"),
                      Catch::Contains("wsd"));
    CHECK_THROWS_WITH(write_reference_checkpoint(out.path(), run.path() / "checkpoint-5", "../x"),
                      Catch::Contains("no file name"));
    const RunDirectory bare("refused-bare");
    FakeModel<F32> alone;
    FakeLoader more(4, 2);
    o = options(bare.path());
    o.identity = Json::object();
    Trainer unrecorded(alone, o);
    unrecorded.run(more);
    CHECK_THROWS_WITH(write_reference_checkpoint(out.path(), bare.path() / "checkpoint-5"),
                      Catch::Contains("batch_size"));
    for (const auto& [option, words] :
         {std::pair{"pack_tokens", "packed"}, {"pad_to_multiple_of", "padded"}}) {
        const RunDirectory rows(std::string("refused-") + words);
        FakeModel<F32> of_rows;
        FakeLoader loader(4, 2);
        o = options(rows.path());
        o.identity["data"][option] = 64;
        Trainer of_option(of_rows, o);
        of_option.run(loader);
        CHECK_THROWS_WITH(write_reference_checkpoint(out.path(), rows.path() / "checkpoint-5"),
                          Catch::Contains(words) && Catch::Contains("end of an epoch"));
    }
    FakeModel<Bf16> other;
    AdamW<Cpu> adam(other.device(), other.parameters());
    other.map_.t2d[0] = 0;
    CHECK_THROWS_WITH(read_reference_checkpoint(golden / "golden-step3", content_of(other, adam)),
                      Catch::Contains("t2d"));
    CHECK_THROWS_AS(read_reference_checkpoint(out.path(), content_of(other, adam)), DataError);
}
