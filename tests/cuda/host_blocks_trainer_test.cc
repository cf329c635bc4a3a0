// The same trainer, pipeline and checkpoints over a device that has memory of its own.
#include <catch2/catch.hpp>

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
    const auto one = whole.run();
    CHECK(one.step == 9);
    Pipeline begun(files, manifest, *b.model, options(work.path() / "b", 4));
    begun.run();
    Pipeline resumed(files, manifest, *c.model, options(work.path() / "b", 0));
    const auto two = resumed.run();
    CHECK(two.steps == 5);
    const auto same = compare_tensors(*one.checkpoint, *two.checkpoint);
    CHECK(same.identical());
    CHECK(same.tensors == 2 + 13 + 3 * 13);

    TinyDraft<TestType, Cpu> d;
    Pipeline host(files, manifest, *d.model, options(work.path() / "d", 0));
    host.run();
    const auto got = whole.evaluate(manifest), want = host.evaluate(manifest);
    CHECK(got.mean_loss() == Approx(want.mean_loss()).epsilon(0.01));
}
