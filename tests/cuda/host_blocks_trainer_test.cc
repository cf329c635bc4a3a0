// The same trainer, pipeline and checkpoints over a device that has memory of its own.
#include <catch2/catch.hpp>
#include <concepts>
#include <string>
#include <vector>

#include "eyas/device/host_blocks.hpp"
#include "eyas/eyas.hpp"
#include "eyas/ops/block/all.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/pipeline/tiny_draft.hpp"

using namespace eyas;
using test::RunDirectory;
using test::TinyDraft;
using test::write_features;

namespace {
PipelineOptions options(const std::filesystem::path& run_dir, std::int64_t steps) {
    PipelineOptions o;
    o.trainer.schedule.base_rate = 1e-2;
    o.trainer.schedule.total_steps = 9;
    o.trainer.epochs = 3;
    o.trainer.seed = 5;
    o.trainer.run_dir = run_dir;
    o.trainer.max_steps = steps;
    o.trainer.save_interval = 3;  // these are written while training goes on
    o.trainer.keep_checkpoints = 0;
    o.loader.batch_size = 2;
    o.loader.max_len = 10;
    return o;
}
}  // namespace

TEMPLATE_TEST_CASE("a run on a device with its own memory, killed and resumed", "", F32, Bf16) {
    const RunDirectory work("blocks");
    const auto features = work.path() / "features";
    write_features(features, 7, dtype_of<typename TestType::Element>);
    Store<LocalFiles> files(local_files_options(parse_store_uri("file:" + features.string())));
    const auto manifest = scan_features(features);

    TinyDraft<TestType, HostBlocks> a, b, c(99, Activations::Recompute);
    Pipeline whole(files, manifest, *a.model, options(work.path() / "a", 0));
    const auto best = work.path() / "best";
    const auto one = whole.run({.on_step = [&](const StepRecord& s) {
        if (s.step == 4) whole.trainer().save_copy(best);
    }});
    CHECK(one.step == 9);
    Pipeline begun(files, manifest, *b.model, options(work.path() / "b", 4));
    const auto four = begun.run();
    Pipeline resumed(files, manifest, *c.model, options(work.path() / "b", 0));
    const auto two = resumed.run();
    CHECK(two.steps == 5);
    const auto same = compare_tensors(*one.checkpoint, *two.checkpoint);
    CHECK(same.identical());
    CHECK(same.tensors == 2 + 13 + 3 * 13);
    CHECK(compare_tensors(best / "checkpoint-4", *four.checkpoint).identical());
    for (const std::int64_t step : {3, 6}) {
        const auto name = "checkpoint-" + std::to_string(step);
        auto o = options(work.path() / name, step);
        o.trainer.save_interval = 0;
        TinyDraft<TestType, HostBlocks> e;
        Pipeline at_once(files, manifest, *e.model, o);
        const auto r = at_once.run();
        CHECK(compare_tensors(work.path() / "a" / name, *r.checkpoint).identical());
    }

    TinyDraft<TestType, Cpu> d;
    Pipeline host(files, manifest, *d.model, options(work.path() / "d", 0));
    host.run();
    const auto got = whole.evaluate(manifest), want = host.evaluate(manifest);
    CHECK(got.mean_loss() == Approx(want.mean_loss()).epsilon(0.01));
}

TEMPLATE_TEST_CASE("packed rows on a device with its own memory", "", F32, Bf16) {
    const RunDirectory work("blocks");
    const auto features = work.path() / "features";
    write_features(features, 9, dtype_of<typename TestType::Element>);
    Store<LocalFiles> files(local_files_options(parse_store_uri("file:" + features.string())));
    const auto manifest = scan_features(features);
    auto o = options("", 0);
    o.loader.batch_size = 1;
    o.loader.pack_tokens = 40;
    TinyDraft<TestType, HostBlocks> blocks;
    TinyDraft<TestType, Cpu> cpu;
    std::vector<double> got, want;
    const auto losses = [](std::vector<double>& of) {
        return TrainerCallbacks{.on_step = [&of](const StepRecord& s) { of.push_back(s.loss); }};
    };
    Pipeline(files, manifest, *blocks.model, o).run(losses(got));
    Pipeline(files, manifest, *cpu.model, o).run(losses(want));
    REQUIRE(got.size() == want.size());
    CHECK(got.size() > 3);
    // Sums in another order; in bfloat16 a few of a step's many roundings go the other way.
    for (std::size_t i = 0; i < got.size(); ++i)
        CHECK(got[i] == Approx(want[i]).epsilon(std::same_as<TestType, F32> ? 1e-5 : 1e-3));
}
