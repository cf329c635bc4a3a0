#include "eyas/trainer/trainer.hpp"

#include <catch2/catch.hpp>
#include <thread>
#include <vector>

#include "eyas/evaluate/evaluate.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/trainer/fake_model.hpp"

using namespace eyas;
using test::FakeLoader;
using test::FakeModel;

namespace {
std::vector<float> weights(FakeModel<F32>& m) {
    std::vector<float> all;
    for (const auto& p : m.parameters())
        all.insert(all.end(), p.value.as<float>().begin(), p.value.as<float>().end());
    return all;
}

TrainerOptions options(std::int64_t epochs) {
    TrainerOptions o;
    o.schedule.base_rate = 0.05;
    o.epochs = epochs;
    o.log_interval = 0;
    return o;
}
}  // namespace

TEST_CASE("training lowers the loss, and the same options give the same bits") {
    FakeModel<F32> a, b;
    FakeLoader one(10, 3), two(10, 3), before_data(10, 1), after_data(10, 1);
    const auto before = evaluate(a, before_data);
    Trainer first(a, options(3)), second(b, options(3));
    const auto result = first.run(one);
    CHECK(result.step == 30);
    CHECK(result.steps == 30);
    CHECK(result.left_over == 0);
    CHECK_FALSE(result.stopped);
    CHECK_FALSE(result.checkpoint);
    second.run(two);
    CHECK(weights(a) == weights(b));
    CHECK(evaluate(a, after_data).mean_loss() < 0.9 * before.mean_loss());
}

TEST_CASE("accumulation averages the gradients of its batches") {
    // One step over two batches against the step written out with the library's parts.
    FakeModel<F32> a, b;
    FakeLoader one(2, 1), two(2, 1);
    auto o = options(1);
    o.accumulation = 2;
    Trainer trainer(a, o);
    CHECK(trainer.run(one).step == 1);
    AdamW<Cpu> adam(b.device(), b.parameters());
    for (int i = 0; i < 2; ++i) b.forward_backward(*two.next(), 0.5f);
    adam.step(0.05, clip_scale(global_norm(b.device(), b.parameters()), 0.5));
    CHECK(weights(a) == weights(b));
}

TEST_CASE("steps follow the schedule and are reported in order") {
    FakeModel<F32> m;
    FakeLoader data(10, 2);
    auto o = options(2);
    o.schedule.warmup_ratio = 0.2;
    std::vector<StepRecord> seen;
    Trainer trainer(m, o);
    trainer.run(data, {.on_step = [&](const StepRecord& r) { seen.push_back(r); }});
    REQUIRE(seen.size() == 20);
    auto s = o.schedule;
    s.total_steps = 20;
    const Schedule schedule(s);
    for (std::size_t i = 0; i < seen.size(); ++i) {
        CHECK(seen[i].step == static_cast<std::int64_t>(i) + 1);
        CHECK(seen[i].last_step == 20);
        CHECK(seen[i].learning_rate == schedule.rate(static_cast<std::int64_t>(i)));
        CHECK(seen[i].grad_norm > 0);
    }
}

TEST_CASE("log records hold the sums of their interval") {
    FakeModel<F32> m, copy;
    FakeLoader data(7, 1), again(7, 1);
    auto o = options(1);
    o.log_interval = 3;
    o.schedule.base_rate = 0;  // weights stand still, so the interval can be computed apart
    std::vector<LogRecord> logs;
    Trainer trainer(m, o);
    const auto result =
        trainer.run(data, {.on_log = [&](const LogRecord& r) { logs.push_back(r); }});
    REQUIRE(logs.size() == 2);
    const auto first = evaluate(copy, again, {.max_batches = 3});
    CHECK(logs[0].step == 3);
    CHECK(logs[0].loss == first.mean_loss());
    CHECK(logs[0].accuracy == std::vector<double>{0.5, 0.5});
    CHECK(logs[0].acceptance == std::vector<double>{0.25, 0.25});
    const auto second = evaluate(copy, again, {.max_batches = 3});
    CHECK(logs[1].step == 6);
    CHECK(logs[1].loss == second.mean_loss());
    CHECK(logs[1].loss != logs[0].loss);
    CHECK(logs[1].tokens_per_second > logs[1].supervised_tokens_per_second);
    CHECK(logs[1].eta_seconds < logs[1].seconds);  // 1 step left of 7
    CHECK(result.last_log->step == 6);
}

TEST_CASE("max_steps ends a run early, and a further run goes on") {
    FakeModel<F32> a;
    FakeLoader data(10, 2);
    auto o = options(2);
    o.max_steps = 4;
    Trainer trainer(a, o);
    CHECK(trainer.run(data).step == 4);
    CHECK(data.position().batch == 4);
    CHECK(trainer.run(data).steps == 0);
}

TEST_CASE("plans that would lose batches or give no step are refused") {
    auto o = options(1);
    o.accumulation = 4;
    CHECK_THROWS_WITH(make_plan(o, 10), Catch::Contains("middle of an optimizer step"));
    CHECK_THROWS_WITH(make_plan(o, 3), Catch::Contains("no optimizer step"));
    o.max_steps = 2;
    CHECK(make_plan(o, 10).last_step == 2);
    o.max_steps = 0;
    o.epochs = 2;  // accumulation goes on across epochs
    CHECK(make_plan(o, 10).last_step == 5);
    CHECK(make_plan(o, 10).total_steps == 5);
    o.schedule.total_steps = 100;
    CHECK(make_plan(o, 10).total_steps == 100);
    FakeModel<F32> m;
    o.accumulation = 0;
    CHECK_THROWS_WITH(Trainer(m, o), Catch::Contains("accumulation"));
}

TEST_CASE("request_stop from another thread ends the run after the step") {
    FakeModel<F32> m;
    FakeLoader data(10, 2);
    Trainer trainer(m, options(2));
    const auto result = trainer.run(data, {.on_step = [&](const StepRecord& r) {
                                        if (r.step == 3)
                                            std::thread([&] { trainer.request_stop(); }).join();
                                    }});
    CHECK(result.stopped);
    CHECK(result.step == 3);
    CHECK(trainer.run(data).step == 20);  // the request was used up
}

TEST_CASE("copies of a checkpoint lie where they are asked for, the newest alone") {
    const test::RunDirectory run("copies");
    FakeModel<F32> m;
    FakeLoader data(6, 1);
    auto o = options(1);
    o.run_dir = run.path() / "run";
    Trainer trainer(m, o);
    trainer.run(
        data, {.on_step = [&](const StepRecord& r) {
            CHECK(std::string(trainer.activity().seen().stage) == "in the callbacks of a step");
            if (r.step == 2 || r.step == 4) trainer.save_copy(run.path() / "best");
        }});
    const auto kept = checkpoint_directories(run.path() / "best");
    REQUIRE(kept.size() == 1);
    CHECK(read_checkpoint_state(kept[0]).step == 4);
    CHECK(read_checkpoint_state(run.path() / "run/checkpoint-6").step == 6);
}

TEST_CASE("a loss that is not finite names its samples and leaves the weights") {
    FakeModel<F32> m;
    FakeLoader data(10, 1);
    data.poison_epoch = 0;
    data.poison_batch = 4;
    std::vector<float> last_good;
    Trainer trainer(m, options(1));
    CHECK_THROWS_MATCHES(
        trainer.run(data, {.on_step = [&](const StepRecord&) { last_good = weights(m); }}),
        DataError,
        Catch::Predicate<DataError>(
            [](const DataError& e) {
                const std::string text = e.what();
                return text.find("e0b4s0, e0b4s1") != std::string::npos &&
                       text.find("step 5") != std::string::npos;
            },
            "names samples and step"));
    CHECK(trainer.step() == 4);
    CHECK(weights(m) == last_good);
}

TEST_CASE("a loader that ends too early is the caller's fault") {
    FakeModel<F32> m;
    FakeLoader data(5, 1);
    Trainer trainer(m, options(2));
    CHECK_THROWS_AS(trainer.run(data), ContractError);
}

namespace {
/// A loader that learns its length at the end, as one that follows a stream does.
class OpenLoader : public FakeLoader {
public:
    explicit OpenLoader(std::int64_t batches) : FakeLoader(1000, 1), length(batches) {}
    std::int64_t batches_per_epoch() const { return 0; }
    const Batch* next() {
        if (position().batch < length) return FakeLoader::next();
        if (silent) throw TransportError("no new sample came", "stream", "Check the producer");
        return nullptr;
    }
    bool interrupted() const { return interrupt; }

    std::int64_t length;
    bool silent = false, interrupt = false;
};
static_assert(BatchSource<OpenLoader>);

TrainerOptions open_options(std::int64_t accumulation = 1) {
    auto o = options(1);
    o.schedule.total_steps = 10;
    o.accumulation = accumulation;
    return o;
}
}  // namespace

TEST_CASE("data of unknown length are trained to their end, like as many that were known") {
    FakeModel<F32> a, b;
    OpenLoader open(10);
    FakeLoader known(10, 1);
    Trainer one(a, open_options()), two(b, options(1));
    std::int64_t last = -1;
    const auto result =
        one.run(open, {.on_step = [&](const StepRecord& r) { last = r.last_step; }});
    two.run(known);
    CHECK(result.step == 10);
    CHECK_FALSE(result.stopped);
    CHECK(result.left_over == 0);
    CHECK(last == 0);  // not known
    CHECK(weights(a) == weights(b));
}

TEST_CASE("max_steps ends data of unknown length, too") {
    FakeModel<F32> m;
    OpenLoader open(10);
    auto o = open_options();
    o.schedule.total_steps = 0;
    o.max_steps = 4;
    Trainer trainer(m, o);
    CHECK(trainer.run(open).step == 4);
}

TEST_CASE("batches that make no whole step at the end are told, and come again") {
    FakeModel<F32> a, b;
    OpenLoader open(11), whole(12);
    Trainer one(a, open_options(4)), two(b, open_options(4));
    auto result = one.run(open);
    CHECK(result.step == 2);
    CHECK(result.left_over == 3);
    CHECK_FALSE(result.stopped);
    CHECK(open.position().batch == 8);
    open.length = 12;  // one more after all
    CHECK(one.run(open).step == 3);
    two.run(whole);
    CHECK(weights(a) == weights(b));
}

TEST_CASE("an interrupted wait stops the run, and what came of the step comes again") {
    FakeModel<F32> a, b;
    OpenLoader open(6), whole(8);
    open.interrupt = true;
    Trainer one(a, open_options(4)), two(b, open_options(4));
    const auto result = one.run(open);
    CHECK(result.stopped);
    CHECK(result.step == 1);
    CHECK(result.left_over == 0);
    open.interrupt = false;
    open.length = 8;
    CHECK(one.run(open).step == 2);
    two.run(whole);
    CHECK(weights(a) == weights(b));
}

TEST_CASE("a silent producer is an error after what was trained is acknowledged") {
    FakeModel<F32> m;
    OpenLoader open(6);
    open.silent = true;
    Trainer trainer(m, open_options(4));
    CHECK_THROWS_AS(trainer.run(open), TransportError);
    CHECK(trainer.step() == 1);
    REQUIRE(open.acknowledged.size() == 1);
    CHECK(open.acknowledged[0].first.batch == 4);
    CHECK(open.acknowledged[0].second == 1);
}

TEST_CASE("schedules that depend on the length want to be told it") {
    auto o = options(1);
    CHECK_THROWS_WITH(make_plan(o, 0), Catch::Contains("--total-steps"));
    o.schedule.kind = ScheduleKind::Constant;
    CHECK_THROWS_AS(make_plan(o, 0), ContractError);  // its warm-up depends on it
    o.schedule.warmup_ratio = 0;
    CHECK(make_plan(o, 0).open);
    CHECK(make_plan(o, 0).known_last_step() == 0);
    o.epochs = 2;
    CHECK_THROWS_WITH(make_plan(o, 0), Catch::Contains("one epoch"));
}

TEST_CASE("batches are acknowledged at each checkpoint, up to the last whole step") {
    FakeModel<F32> m;
    FakeLoader data(10, 1);
    auto o = options(1);
    o.accumulation = 2;
    o.save_interval = 2;
    Trainer trainer(m, o);
    trainer.run(data);
    std::vector<std::pair<std::int64_t, std::int64_t>> seen;  // batches, step
    for (const auto& [position, step] : data.acknowledged)
        seen.emplace_back(position.epoch * 10 + position.batch, step);
    CHECK(seen == std::vector<std::pair<std::int64_t, std::int64_t>>{{4, 2}, {8, 4}, {10, 5}});
}
