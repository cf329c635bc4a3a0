#pragma once
#include <catch2/catch.hpp>
#include <concepts>
#include <filesystem>
#include <string>
#include <vector>

#include "eyas/eyas.hpp"
#include "eyas/ops/block/all.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/pipeline/tiny_draft.hpp"

/// The same trainer, pipeline and checkpoints over a device that has memory of its own.
namespace eyas::test::own_memory {

inline PipelineOptions options(const std::filesystem::path& run_dir, std::int64_t steps) {
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

/// Killed and resumed; checkpoints that are written meanwhile; beside Cpu.
template <PrecisionPolicy P, Device D>
void killed_and_resumed() {
    const RunDirectory work("blocks");
    const auto features = work.path() / "features";
    write_features(features, 7, dtype_of<typename P::Element>);
    Store<LocalFiles> files(local_files_options(parse_store_uri("file:" + features.string())));
    const auto manifest = scan_features(features);

    TinyDraft<P, D> a, b, c(99, Activations::Recompute);
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
        TinyDraft<P, D> e;
        Pipeline at_once(files, manifest, *e.model, o);
        const auto r = at_once.run();
        CHECK(compare_tensors(work.path() / "a" / name, *r.checkpoint).identical());
    }

    TinyDraft<P, Cpu> d;
    Pipeline host(files, manifest, *d.model, options(work.path() / "d", 0));
    host.run();
    const auto got = whole.evaluate(manifest), want = host.evaluate(manifest);
    CHECK(got.mean_loss() == Approx(want.mean_loss()).epsilon(0.01));
}

/// Rows of several documents, beside Cpu.
template <PrecisionPolicy P, Device D>
void packed_rows() {
    const RunDirectory work("blocks");
    const auto features = work.path() / "features";
    write_features(features, 9, dtype_of<typename P::Element>);
    Store<LocalFiles> files(local_files_options(parse_store_uri("file:" + features.string())));
    const auto manifest = scan_features(features);
    auto o = options("", 0);
    o.loader.batch_size = 1;
    o.loader.pack_tokens = 40;
    TinyDraft<P, D> blocks;
    TinyDraft<P, Cpu> cpu;
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
        CHECK(got[i] == Approx(want[i]).epsilon(std::same_as<P, F32> ? 1e-5 : 1e-3));
}

}  // namespace eyas::test::own_memory
