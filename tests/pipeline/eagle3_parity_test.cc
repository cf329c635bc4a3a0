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

TEST_CASE("a packed run that stops anywhere goes on to the same bits, and tells its padding") {
    const RunDirectory work("eagle3-packed");
    const auto features = work.path() / "features";
    write_features(features, 11, DType::F32);
    Store<LocalFiles> files(local_files_options(parse_store_uri("file:" + features.string())));
    const auto manifest = scan_features(features);
    const auto packed = [&](const std::string& run) {
        auto o = options(work.path() / run);
        o.loader.pack_tokens = 24;
        o.trainer.log_interval = 1;
        return o;
    };
    TinyDraft<F32> whole;
    Pipeline pipeline(files, manifest, *whole.model, packed("whole"));
    std::vector<double> told, want;
    const auto result =
        pipeline.run({.on_log = [&](const LogRecord& r) { told.push_back(r.padding_percent); }});
    auto o = packed("").loader;
    o.seed = 5;
    o.epochs = 3;
    Loader loader(files, manifest, o);
    while (const auto* b = loader.next()) {
        const auto mask = b->attention_mask.as<std::int64_t>();
        const auto empty = static_cast<double>(std::ranges::count(mask, 0));
        want.push_back(100 * empty / static_cast<double>(mask.size()));
    }
    REQUIRE(told.size() == want.size());
    for (std::size_t i = 0; i < told.size(); ++i) CHECK(told[i] == Approx(want[i]).margin(1e-9));
    CHECK(*std::ranges::max_element(want) > 0);
    REQUIRE(result.step == static_cast<std::int64_t>(want.size()));
    for (std::int64_t stop = 1; stop < result.step; ++stop) {
        TinyDraft<F32> a, b;
        auto first = packed("stop" + std::to_string(stop));
        first.trainer.max_steps = stop;
        Pipeline(files, manifest, *a.model, first).run();
        first.trainer.max_steps = 0;
        const auto rest = Pipeline(files, manifest, *b.model, first).run();
        CHECK(rest.steps == result.step - stop);
        CHECK(compare_tensors(*result.checkpoint, *rest.checkpoint).identical());
    }
    TinyDraft<F32> other;
    Pipeline unpacked(files, manifest, *other.model, options(work.path() / "whole"));
    CHECK_THROWS_AS(unpacked.run(), ContractError);
    auto longer = packed("whole");
    longer.loader.pad_to_multiple_of = 8;
    Pipeline padded(files, manifest, *other.model, longer);
    CHECK_THROWS_WITH(padded.run(), Catch::Contains("pad_to_multiple_of"));
}
