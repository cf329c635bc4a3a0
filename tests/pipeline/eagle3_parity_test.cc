#include <catch2/catch.hpp>
#include <concepts>
#include <random>

#include "eyas/eyas.hpp"
#include "tests/checkpoint/run_directory.hpp"

using namespace eyas;
using test::RunDirectory;

namespace {
constexpr std::int64_t D = 16, V = 24, W = 12;

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

Tensor random_tensor(DType dtype, const Shape& shape, std::mt19937& random) {
    Tensor wide(DType::F32, shape), t(dtype, shape);
    for (auto& x : wide.as<float>()) x = static_cast<float>(random() % 1000) / 500.f - 1.f;
    convert_into(wide, t.mutable_view());
    return t;
}

// Feature files as capture writes them, 5 to 12 tokens each.
void write_features(const std::filesystem::path& dir, int samples, DType dtype) {
    eyas::create_directories(dir);
    std::mt19937 random(3);
    for (int s = 0; s < samples; ++s) {
        const auto rows = static_cast<std::int64_t>(5 + random() % 8);
        Tensor ids(DType::I64, Shape{rows}), mask(DType::I64, Shape{rows});
        for (auto& x : ids.as<std::int64_t>()) x = random() % V;
        for (auto& x : mask.as<std::int64_t>()) x = random() % 4 != 0;
        mask.as<std::int64_t>()[1] = 1;
        const auto aux = random_tensor(dtype, Shape{1, rows, 3 * D}, random);
        const auto last = random_tensor(dtype, Shape{1, rows, D}, random);
        const std::vector<NamedTensor> tensors{{"input_ids", ids},
                                               {"loss_mask", mask},
                                               {"aux_hidden_state", aux},
                                               {"hidden_state", last}};
        write_torch_file(dir / ("data_" + std::to_string(s) + ".ckpt"),
                         std::span<const NamedTensor>(tensors));
    }
}

ModelConfig config() {
    return parse_model_config({{"hidden_size", D},
                               {"intermediate_size", 24},
                               {"num_attention_heads", 2},
                               {"num_key_value_heads", 1},
                               {"vocab_size", V},
                               {"draft_vocab_size", W}},
                              "test");
}

template <PrecisionPolicy P>
struct Run {
    explicit Run(std::uint64_t seed = 1, Activations activations = Activations::Keep) : random(7) {
        embed = random_tensor(DType::F32, Shape{V, D}, random);
        head = random_tensor(DType::F32, Shape{V, D}, random);
        VocabMap map;
        for (std::int64_t v = 0; v < V; ++v) map.t2d.push_back(v % 2 == 0);
        for (std::int64_t d = 0; d < W; ++d) map.d2t.push_back(d);
        model = std::make_unique<Draft<P>>(
            config(), Eagle3Options{.ttt_length = 3, .activations = activations}, map,
            FrozenTarget{embed, head}, seed);
    }
    std::mt19937 random;
    Tensor embed, head;
    std::unique_ptr<Draft<P>> model;
};

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

    Run<TestType> a, b, c, d(99, Activations::Recompute);
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
    Run<F32> a;
    Pipeline(files, manifest, *a.model, options(work.path() / "run")).run();
    auto longer = Eagle3<Cpu, F32>(config(), Eagle3Options{.ttt_length = 4}, a.model->vocab_map(),
                                   FrozenTarget{a.embed, a.head}, 1);
    Pipeline other(files, manifest, longer, options(work.path() / "run"));
    CHECK_THROWS_WITH(other.run(), Catch::Contains("run.model.ttt_length"));
}
