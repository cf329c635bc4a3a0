// The states of the batch that comes next go to the GPU while it computes: when they are queued,
// that nothing else changes, and that no other batch is taken for it.
#include <catch2/catch.hpp>
#include <memory>

#include "eyas/device/cuda.cuh"
#include "eyas/eyas.hpp"
#include "eyas/ops/block/all.hpp"
#include "fake_cuda.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/pipeline/tiny_draft.hpp"

using namespace eyas;
using Told = std::vector<std::string>;

namespace {
constexpr std::int64_t vocab = 24, width = 2048;  // of the target: 128 rows are worth the ring

ModelConfig config() {
    return parse_model_config({{"hidden_size", 16},
                               {"target_hidden_size", width},
                               {"intermediate_size", 24},
                               {"num_attention_heads", 2},
                               {"num_key_value_heads", 1},
                               {"vocab_size", vocab},
                               {"draft_vocab_size", vocab}},
                              "test");
}

/// A batch of one row and what it views.
struct Rows {
    Rows(std::int64_t tokens, std::uint32_t seed, DType dtype, std::int64_t states = width)
        : random(seed),
          ids(DType::I64, {1, tokens}),
          ones(DType::I64, {1, tokens}),
          hidden(test::random_tensor(dtype, {1, tokens, 3 * states}, random)),
          target(test::random_tensor(dtype, {1, tokens, states}, random)) {
        for (auto& x : ids.as<std::int64_t>()) x = random() % vocab;
        for (auto& x : ones.as<std::int64_t>()) x = 1;
        batch = {ids.view(), ones.view(), ones.view(), hidden.view(), target.view(), {}, {"s"}};
        batch.number = seed;
    }
    std::mt19937 random;
    Tensor ids, ones, hidden, target;
    Batch batch;
};

template <PrecisionPolicy P>
struct Draft {
    Tensor embedding = table({vocab, 16}), head = table({vocab, width});
    Eagle3<Cuda, P> model{
        config(), {.ttt_length = 2}, identity_vocab_map(vocab), FrozenTarget{embedding, head}, 1};

    static Tensor table(const Shape& shape) {
        std::mt19937 random(9);
        return test::random_tensor(DType::F32, shape, random);
    }
    /// The loss and every gradient.
    std::vector<float> step(const Batch& b, const Batch* next = nullptr) {
        model.ahead(next);
        model.zero_gradients();
        std::vector<float> all{static_cast<float>(model.forward_backward(b, 1.f).total_loss)};
        for (const auto& p : model.parameters()) {
            const auto host = on_host(model.device(), p.grad);
            const auto g = host.template as<float>();
            all.insert(all.end(), g.begin(), g.end());
        }
        return all;
    }
};

/// Copies that are queued until the step waits for the first time, which fails.
template <class D>
int copies_before_a_wait(D& draft, const Batch& b, const Batch* next) {
    draft.model.ahead(next);
    draft.model.zero_gradients();
    draft.model.device().synchronize();
    fake_cuda::reset();
    fake_cuda::fail("cudaStreamSynchronize", 1, cudaErrorUnknown);
    CHECK_THROWS_AS(draft.model.forward_backward(b, 1.f), ResourceError);
    const int copies = fake_cuda::calls("cudaMemcpyAsync");
    fake_cuda::reset();
    return copies;
}
}  // namespace

TEMPLATE_TEST_CASE("states that come next are on their way before the step waits", "", F32, Bf16) {
    for (const auto dtype : {DType::F32, DType::BF16}) {
        const Rows a(256, 1, dtype), b(256, 2, dtype), c(256, 3, dtype);
        Draft<TestType> draft;
        const auto first = draft.step(a.batch), second = draft.step(b.batch),
                   third = draft.step(c.batch);
        // Of both arrays: to the GPU, and to their place there.
        CHECK(copies_before_a_wait(draft, a.batch, &b.batch) ==
              copies_before_a_wait(draft, a.batch, nullptr) + 4);
        CHECK(draft.step(a.batch, &b.batch) == first);
        CHECK(draft.step(b.batch, &c.batch) == second);
        fake_cuda::reset();
        CHECK(draft.step(c.batch) == third);
        const int here = fake_cuda::calls("cudaMemcpyAsync");
        fake_cuda::reset();
        CHECK(draft.step(c.batch) == third);  // known by its number still
        CHECK(fake_cuda::calls("cudaMemcpyAsync") == here);
        CHECK(draft.step(a.batch) == first);
    }
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("no other batch is taken for the one that was announced") {
    Draft<F32> draft;
    Rows a(128, 1, DType::F32), b(128, 2, DType::F32), c(128, 3, DType::F32);
    const auto first = draft.step(a.batch), second = draft.step(b.batch),
               third = draft.step(c.batch);
    draft.step(a.batch, &b.batch);
    CHECK(draft.step(c.batch) == third);   // another
    CHECK(draft.step(b.batch) == second);  // in the end
    // The same memory, other content: another number.
    draft.step(c.batch, &a.batch);
    const auto bytes = b.hidden.view().bytes();
    std::copy(bytes.begin(), bytes.end(), a.hidden.mutable_view().data);
    a.batch.number = 7;
    const auto changed = draft.step(a.batch);
    CHECK(changed != first);
    draft.step(c.batch);
    CHECK(draft.step(a.batch) == changed);
    // A copy with other states has its number.
    draft.step(c.batch, &b.batch);
    Batch other_states = b.batch;
    other_states.hidden_state = c.batch.hidden_state, other_states.target = c.batch.target;
    const auto mixed = draft.step(other_states);
    other_states.number = 0;
    CHECK(draft.step(other_states) == mixed);
    CHECK(mixed != second);
    // Without a number nobody knows.
    b.batch.number = 0;
    draft.step(c.batch, &b.batch);
    CHECK(draft.step(b.batch) == second);
    // What does not fit is refused when it comes, and not before.
    const Rows longer(256, 5, DType::F32), other(128, 6, DType::F32, width / 2);
    CHECK(draft.step(c.batch, &longer.batch) == third);
    CHECK(draft.step(c.batch, &other.batch) == third);
    CHECK_THROWS_AS(draft.step(other.batch), DataError);
    draft.step(longer.batch);
    // A batch that throws does not leave another behind.
    CHECK_THROWS_AS(draft.step(other.batch, &b.batch), DataError);
    CHECK(draft.step(c.batch) == third);
    CHECK(fake_cuda::failures() == Told());
}

TEST_CASE(
    "a training whose loader shows what comes has the bits of one that brings it in its turn") {
    const test::RunDirectory work("ahead");
    eyas::create_directories(work.path() / "features");
    for (int i = 0; i < 6; ++i) {
        const Rows r(100 + 10 * i, static_cast<std::uint32_t>(i + 1), DType::F32);
        const auto rows = r.batch.tokens();
        const auto flat = [&](const Tensor& t) {
            return TensorView{t.view().data, DType::I64, {rows}};
        };
        const std::vector<NamedTensor> tensors{{"input_ids", flat(r.ids)},
                                               {"loss_mask", flat(r.ones)},
                                               {"aux_hidden_state", r.hidden},
                                               {"hidden_state", r.target}};
        write_torch_file(work.path() / "features" / ("data_" + std::to_string(i) + ".ckpt"),
                         std::span<const NamedTensor>(tensors));
    }
    Store<LocalFiles> files(
        local_files_options(parse_store_uri("file:" + (work.path() / "features").string())));
    const auto manifest = scan_features(work.path() / "features");
    const auto train = [&](const char* name, std::int64_t prefetch) {
        Draft<F32> draft;
        PipelineOptions o;
        o.trainer.epochs = 4;
        o.trainer.run_dir = work.path() / name;
        o.loader.batch_size = 2;
        o.loader.prefetch = prefetch;
        fake_cuda::reset();
        return *Pipeline(files, manifest, draft.model, o).run().checkpoint;
    };
    const auto in_turn = train("in turn", 0);
    const auto ahead = train("ahead", 3);
    CHECK(compare_tensors(in_turn, ahead).identical());
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}
