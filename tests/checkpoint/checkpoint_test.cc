#include "eyas/checkpoint/checkpoint.hpp"

#include <catch2/catch.hpp>
#include <fstream>
#include <set>

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
    o.schedule.total_steps = 20;
    o.adamw.weight_decay = 0.01;
    o.epochs = 2;
    o.log_interval = 4;
    o.save_interval = 3;
    o.run_dir = run_dir;
    return o;
}

template <PrecisionPolicy P>
std::vector<std::byte> all_bits(FakeModel<P>& m, Trainer<FakeModel<P>>& t) {
    std::vector<std::byte> bits;
    for (const auto& p : m.parameters())
        bits.insert(bits.end(), p.value.bytes().begin(), p.value.bytes().end());
    for (const auto& b : t.optimizer().state())
        bits.insert(bits.end(), b.buffer.bytes().begin(), b.buffer.bytes().end());
    return bits;
}

std::set<std::string> names_in(const std::filesystem::path& dir) {
    std::set<std::string> names;
    for (const auto& e : std::filesystem::directory_iterator(dir))
        names.insert(e.path().filename().string());
    return names;
}

// Flips one bit in the middle of a file.
void flip(const std::filesystem::path& path) {
    auto text = read_text_file(path);
    text[text.size() / 2] = static_cast<char>(text[text.size() / 2] ^ 1);
    write_text_file(path, text);
}
}  // namespace

TEMPLATE_TEST_CASE("a stopped and resumed run ends with the bits of an uninterrupted one", "", F32,
                   Bf16) {
    using Model = FakeModel<TestType>;
    const RunDirectory whole("whole"), parts("parts");
    Model a;
    FakeLoader data(10, 2);
    Trainer<Model> uninterrupted(a, options(whole.path()));
    std::vector<LogRecord> logs, resumed_logs;
    uninterrupted.run(data, {.on_log = [&](const LogRecord& r) { logs.push_back(r); }});
    {
        Model b;
        FakeLoader first(10, 2);
        auto o = options(parts.path());
        o.max_steps = 13;  // inside the second epoch and inside a log interval
        Trainer<Model> trainer(b, o);
        const auto r = trainer.run(first);
        CHECK(r.checkpoint == parts.path() / "checkpoint-13");
    }
    Model c(99);  // other weights: all must come from the checkpoint
    FakeLoader second(10, 2);
    Trainer<Model> trainer(c, options(parts.path()));
    CheckpointRecord resumed;
    const auto r = trainer.run(
        second, {.on_log = [&](const LogRecord& l) { resumed_logs.push_back(l); },
                 .on_resume = [&](const CheckpointRecord& record) { resumed = record; }});
    CHECK(resumed.step == 13);
    CHECK(resumed.report.empty());
    CHECK(r.step == 20);
    CHECK(r.steps == 7);
    CHECK(all_bits(a, uninterrupted) == all_bits(c, trainer));
    REQUIRE(resumed_logs.size() == 2);
    CHECK(resumed_logs[0].step == 16);  // holds steps 13 to 16, one of them from before
    CHECK(resumed_logs[0].loss == logs[3].loss);
    for (const char* file : {"model.safetensors", "optimizer.safetensors", "config.json"})
        CHECK(read_text_file(whole.path() / "checkpoint-20" / file) ==
              read_text_file(parts.path() / "checkpoint-20" / file));
}

TEST_CASE("a checkpoint holds what users load, under the reference's names") {
    const RunDirectory run("names");
    FakeModel<Bf16> m;
    FakeLoader data(10, 2);
    Trainer trainer(m, options(run.path()));
    trainer.run(data);
    const auto dir = run.path() / "checkpoint-20";
    CHECK(names_in(dir) == std::set<std::string>{"model.safetensors", "optimizer.safetensors",
                                                 "config.json", "state.json"});
    const SafetensorsFile file(dir / "model.safetensors");
    CHECK(file.at("t2d").dtype == DType::Bool);
    CHECK(file.at("d2t").dtype == DType::I64);
    CHECK(file.at("fc.weight").dtype == DType::BF16);
    CHECK(file.tensors().size() == 5);
    CHECK(read_model_config(dir / "config.json").hidden_size == 4);
    FakeModel<F32> other(7);
    load_weights(dir, other.parameters(), other.vocab_map());
    CHECK(other.parameters()[0].value.as<float>()[3] ==
          static_cast<float>(m.parameters()[0].value.as<BFloat16>()[3]));
    other.map_.t2d[0] = 0;
    CHECK_THROWS_AS(load_weights(dir, other.parameters(), other.vocab_map()), ContractError);
}

TEST_CASE("the newest checkpoints are kept, older ones and leftovers go") {
    const RunDirectory run("rotate");
    eyas::create_directories(run.path() / ".eyas-discard-new-checkpoint-9");  // a killed writer's
    write_text_file(run.path() / "notes.txt", "mine");
    FakeModel<F32> m;
    FakeLoader data(10, 2);
    auto o = options(run.path());
    o.keep_checkpoints = 2;
    Trainer trainer(m, o);
    trainer.run(data);
    CHECK(names_in(run.path()) ==
          std::set<std::string>{"checkpoint-18", "checkpoint-20", "notes.txt"});
}

TEST_CASE("corrupt checkpoints are passed over with a report") {
    const RunDirectory run("corrupt");
    {
        FakeModel<F32> m;
        FakeLoader data(10, 2);
        auto o = options(run.path());
        o.keep_checkpoints = 0;
        Trainer trainer(m, o);
        trainer.run(data);
    }
    flip(run.path() / "checkpoint-20" / "optimizer.safetensors");
    std::filesystem::remove(run.path() / "checkpoint-18" / "model.safetensors");
    flip(run.path() / "checkpoint-15" / "state.json");
    std::filesystem::resize_file(run.path() / "checkpoint-12" / "model.safetensors", 100);
    eyas::create_directories(run.path() / "checkpoint-x");
    const auto latest = latest_checkpoint(run.path());
    REQUIRE(latest.path);
    CHECK(latest.path->filename() == "checkpoint-9");
    CHECK(latest.state.step == 9);
    for (const char* text : {"checkpoint-20/optimizer.safetensors", "checkpoint-18",
                             "checkpoint-15", "checkpoint-12/model.safetensors"})
        CHECK_THAT(latest.report, Catch::Contains(text));

    FakeModel<F32> m;
    FakeLoader data(10, 2);
    Trainer trainer(m, options(run.path()));
    std::string report;
    trainer.run(data, {.on_resume = [&](const CheckpointRecord& r) { report = r.report; }});
    CHECK_THAT(report, Catch::Contains("checkpoint-20"));
    CHECK(trainer.step() == 20);
}

TEST_CASE("a run directory with nothing but bad checkpoints is an error, not a fresh start") {
    const RunDirectory run("allbad");
    eyas::create_directories(run.path() / "checkpoint-5");
    FakeModel<F32> m;
    FakeLoader data(10, 2);
    Trainer trainer(m, options(run.path()));
    CHECK_THROWS_WITH(trainer.run(data), Catch::Contains("checkpoint-5"));
}

TEST_CASE("resuming with other options names the field") {
    const RunDirectory run("options");
    auto o = options(run.path());
    o.identity["data"] = {{"samples", 20}};
    {
        FakeModel<F32> m;
        FakeLoader data(10, 2);
        auto first = o;
        first.max_steps = 6;
        Trainer trainer(m, first);
        trainer.run(data);
    }
    FakeModel<F32> m;
    std::string field;
    std::int64_t batches = 10;
    SECTION("seed") { o.seed = 3, field = "seed: saved 0, now 3"; }
    SECTION("schedule") { o.schedule.total_steps = 30, field = "schedule.total_steps"; }
    SECTION("accumulation") { o.accumulation = 2, field = "accumulation"; }
    SECTION("decay") { o.adamw.weight_decay = 0, field = "adamw.weight_decay"; }
    SECTION("data") { o.identity["data"]["samples"] = 21, field = "run.data.samples"; }
    SECTION("size of the data") { batches = 11, field = "batches_per_epoch"; }
    SECTION("model") { m.config_.rms_norm_eps = 1e-5, field = "config.rms_norm_eps"; }
    SECTION("vocabulary") { m.map_.d2t[1] = 1, field = "d2t"; }
    FakeLoader data(batches, 2);
    const Tensor before = Tensor::copy_of(m.parameters()[0].value);
    Trainer trainer(m, o);
    CHECK_THROWS_MATCHES(trainer.run(data), ContractError,
                         Catch::Predicate<ContractError>([&](const ContractError& e) {
                             return std::string(e.what()).find(field) != std::string::npos;
                         }));
    CHECK(std::ranges::equal(before.view().bytes(), m.parameters()[0].value.bytes()));
}

TEST_CASE("another precision is refused") {
    const RunDirectory run("precision");
    FakeModel<F32> a;
    FakeModel<Bf16> b;
    FakeLoader one(10, 2), two(10, 2);
    Trainer first(a, options(run.path()));
    first.run(one);
    Trainer second(b, options(run.path()));
    CHECK_THROWS_WITH(second.run(two), Catch::Contains("precision"));
}

TEST_CASE("Resume::Never and Resume::Require") {
    const RunDirectory run("modes");
    FakeModel<F32> m;
    FakeLoader data(10, 2);
    auto o = options(run.path());
    o.resume = Resume::Require;
    Trainer required(m, o);
    CHECK_THROWS_AS(required.run(data), ContractError);
    o.resume = Resume::Never;
    Trainer fresh(m, o);
    CHECK(fresh.run(data).step == 20);
    Trainer again(m, o);
    CHECK_THROWS_AS(again.run(data), ContractError);
    o.resume = Resume::IfPresent;
    Trainer done(m, o);
    FakeLoader more(10, 2);
    const auto r = done.run(more);  // already complete: nothing to do, nothing rewritten
    CHECK(r.steps == 0);
    CHECK(r.checkpoint == run.path() / "checkpoint-20");
}
