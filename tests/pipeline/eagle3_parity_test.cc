#include <catch2/catch.hpp>
#include <concepts>

#include "eyas/eyas.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/pipeline/tiny_draft.hpp"

using namespace eyas;
using test::RunDirectory;
using test::TinyDraft;
using test::write_features;

namespace {
template <class M>
using Colocated = Pipeline<Store<LocalFiles>, Trainer<M>>;
template <class M>
using Disaggregated = Pipeline<Store<SharedDirectory>, Trainer<M>>;
template <PrecisionPolicy P>
using Draft = Eagle3<Cpu, P>;
static_assert(
    std::same_as<Colocated<Draft<F32>>::trainer_type, Disaggregated<Draft<F32>>::trainer_type>);
static_assert(
    !std::same_as<Colocated<Draft<F32>>::store_type, Disaggregated<Draft<F32>>::store_type>);

PipelineOptions options(const std::filesystem::path& run_dir) {
    PipelineOptions o;
    o.trainer.schedule.base_rate = 1e-2;
    o.trainer.schedule.total_steps = 9;
    o.trainer.epochs = 3;
    o.trainer.seed = 5;
    o.trainer.run_dir = run_dir;
    o.loader.batch_size = 2;
    o.loader.max_len = 10;
    return o;
}
}  // namespace

TEMPLATE_TEST_CASE(
    "EAGLE3: colocated, disaggregated and moved runs end with the same bits, whether "
    "activations are kept or computed again",
    "", F32, Bf16) {
    const RunDirectory work("eagle3");
    const auto features = work.path() / "features";
    write_features(features, 7, dtype_of<typename TestType::Element>);

    Store<LocalFiles> files(local_files_options(parse_store_uri("file:" + features.string())));
    Store<SharedDirectory> shared(shared_directory_options(
        parse_store_uri("disagg:" + (work.path() / "store").string() + "?store_id=test")));
    write_manifest(work.path() / "manifest.json", ingest(shared, features).manifest);
    const auto near = scan_features(features);
    const auto far = read_manifest(work.path() / "manifest.json");

    TinyDraft<TestType> a, b, c, d(99, Activations::Recompute);
    Colocated<Draft<TestType>> colocated(files, near, *a.model, options(work.path() / "a"));
    Disaggregated<Draft<TestType>> disaggregated(shared, far, *b.model, options(work.path() / "b"));
    const auto before = disaggregated.evaluate(far);
    const auto one = colocated.run(), two = disaggregated.run();
    CHECK(one.step == 9);
    const auto same = compare_tensors(*one.checkpoint, *two.checkpoint);
    CHECK(same.identical());
    CHECK(same.tensors == 2 + 13 + 3 * 13);
    CHECK(disaggregated.evaluate(far).mean_loss() < before.mean_loss());

    auto o = options(work.path() / "c");
    o.trainer.max_steps = 4;
    Colocated<Draft<TestType>> begun(files, near, *c.model, o);
    begun.run();
    o.trainer.max_steps = 0;
    Disaggregated<Draft<TestType>> moved(shared, far, *d.model, o);
    const auto three = moved.run();
    CHECK(three.steps == 5);
    CHECK(compare_tensors(*one.checkpoint, *three.checkpoint).identical());
}

TEST_CASE("other model options are refused on resume") {
    const RunDirectory work("eagle3-options");
    const auto features = work.path() / "features";
    write_features(features, 4, DType::F32);
    Store<LocalFiles> files(local_files_options(parse_store_uri("file:" + features.string())));
    const auto manifest = scan_features(features);
    TinyDraft<F32> a;
    Pipeline(files, manifest, *a.model, options(work.path() / "run")).run();
    auto longer = Eagle3<Cpu, F32>(test::tiny_config(), Eagle3Options{.ttt_length = 4},
                                   a.model->vocab_map(), FrozenTarget{a.embed, a.head}, 1);
    Pipeline other(files, manifest, longer, options(work.path() / "run"));
    CHECK_THROWS_WITH(other.run(), Catch::Contains("run.model.ttt_length"));
}
