#include <catch2/catch.hpp>
#include <concepts>
#include <random>

#include "eyas/pipeline/pipeline.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/loader/fake_store.hpp"
#include "tests/trainer/fake_model.hpp"

using namespace eyas;
using test::FakeModel;
using test::RunDirectory;

namespace {
// Two kinds of store that behave differently in time and type, and hold the same samples.
struct Near : test::FakeStore {};
struct Far : test::FakeStore {};

using Model = FakeModel<F32>;
using Colocated = Pipeline<Near, Trainer<Model>>;
using Disaggregated = Pipeline<Far, Trainer<Model>>;
static_assert(std::same_as<Colocated::trainer_type, Disaggregated::trainer_type>);
static_assert(!std::same_as<Colocated::store_type, Disaggregated::store_type>);

// Samples of 2 to 6 rows for a model of D = 4.
Manifest fill(test::FakeStore& store, int samples, std::uint32_t seed) {
    std::mt19937 random(seed);
    Manifest manifest;
    for (int s = 0; s < samples; ++s) {
        const auto rows = static_cast<std::int64_t>(2 + random() % 5);
        Tensor ids(DType::I64, Shape{rows}), mask(DType::I64, Shape{rows}),
            aux(DType::F32, Shape{1, rows, 12}), last(DType::F32, Shape{1, rows, 4});
        for (auto& x : ids.as<std::int64_t>()) x = random() % 8;
        for (auto& x : mask.as<std::int64_t>()) x = 1;
        for (auto* t : {&aux, &last})
            for (auto& x : t->as<float>()) x = static_cast<float>(random() % 100) / 50.f - 1.f;
        const std::vector<NamedTensor> tensors{{"input_ids", ids},
                                               {"loss_mask", mask},
                                               {"aux_hidden_state", aux},
                                               {"hidden_state", last}};
        SampleRef ref;
        ref.sample_id = "s:" + std::to_string(s);
        ref.run_id = "s";
        ref.num_tokens = rows;
        manifest.refs.push_back(store.put(ref, tensors));
    }
    return manifest;
}

PipelineOptions options() {
    PipelineOptions o;
    o.trainer.schedule.base_rate = 0.05;
    o.trainer.epochs = 3;
    o.trainer.seed = 11;
    o.loader.batch_size = 2;
    return o;
}

std::vector<float> weights(Model& m) {
    const auto w = m.parameters()[0].value.as<float>();
    return {w.begin(), w.end()};
}
}  // namespace

TEST_CASE("where features live changes no bit") {
    Near near;
    Far far;
    far.delay = std::chrono::milliseconds(1);
    Model a, b;
    Colocated colocated(near, fill(near, 9, 1), a, options());
    Disaggregated disaggregated(far, fill(far, 9, 1), b, options());
    CHECK(colocated.run().step == 12);  // 9 / 2 batches, 3 epochs
    CHECK(disaggregated.run().step == 12);
    CHECK(weights(a) == weights(b));
    auto other = options();
    other.trainer.seed = 12;
    Model c;
    Pipeline reseeded(near, fill(near, 9, 1), c, other);
    static_assert(std::same_as<decltype(reseeded), Colocated>);
    reseeded.run();
    CHECK(weights(a) != weights(c));  // the seed orders the samples
}

TEST_CASE("a run goes on in another store, but not with other data") {
    const RunDirectory run("moved");
    Near near;
    Far far;
    Model whole, first, second, third;
    Pipeline uninterrupted(near, fill(near, 8, 1), whole, options());
    uninterrupted.run();
    auto o = options();
    o.trainer.run_dir = run.path();
    o.trainer.schedule.total_steps = 12;
    o.trainer.max_steps = 5;
    Pipeline begun(near, fill(near, 8, 1), first, o);
    begun.run();
    o.trainer.max_steps = 0;
    Pipeline stranger(far, fill(far, 8, 2), third, o);
    CHECK_THROWS_WITH(stranger.run(), Catch::Contains("run.data.order"));
    auto cut = o;
    cut.loader.max_len = 3;
    Pipeline shorter(far, fill(far, 8, 1), third, cut);
    CHECK_THROWS_WITH(shorter.run(), Catch::Contains("run.data.max_len"));
    Pipeline moved(far, fill(far, 8, 1), second, o);
    CHECK(moved.run().steps == 7);
    CHECK(weights(second) == weights(whole));
}

namespace {
/// A store whose place does not let go of what was consumed.
struct Stuck : test::FakeStore {
    void drain() {
        if (!released.empty()) throw ResourceError("removals are pending", released[0], "Look");
    }
};
}  // namespace

TEST_CASE("a run that ends with consumed samples that cannot be removed says so") {
    Stuck store;
    Model m;
    Pipeline pipeline(store, fill(store, 4, 1), m, options());
    CHECK_THROWS_AS(pipeline.run(), ResourceError);
    CHECK(pipeline.trainer().step() == 6);
}

TEST_CASE("held-out figures improve and cover every sample") {
    Near store;
    Model m;
    const auto train = fill(store, 12, 1), held_out = fill(store, 5, 1);
    Pipeline pipeline(store, train, m, options());
    const auto before = pipeline.evaluate(held_out);
    CHECK(before.samples == 5);  // the short last batch counts too
    pipeline.run();
    CHECK(pipeline.evaluate(held_out).mean_loss() < before.mean_loss());
}
