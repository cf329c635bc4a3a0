#include "eyas/checkpoint/snapshot.hpp"

#include <catch2/catch.hpp>
#include <random>

#include "eyas/optimizer/adamw.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/trainer/fake_model.hpp"

using namespace eyas;
using test::FakeModel;
using test::RunDirectory;

namespace {
/// Tensors of several sizes, from less than a line of the cache to several stretches.
struct State {
    explicit State(std::vector<std::int64_t> sizes, unsigned seed = 1) {
        std::mt19937 random(seed);
        for (const auto n : sizes) {
            values.emplace_back(DType::BF16, Shape{n});
            masters.emplace_back(DType::F32, Shape{n});
            for (auto* t : {&values.back(), &masters.back()})
                for (auto& byte : t->mutable_view().bytes())
                    byte = static_cast<std::byte>(random() & 0xff);
        }
        for (std::size_t i = 0; i < values.size(); ++i)
            parameters.push_back({"p" + std::to_string(i), values[i].mutable_view(), {}, true});
    }
    CheckpointContent content() {
        CheckpointContent c{parameters, draft.vocab_map(), draft.config(), {}};
        for (std::size_t i = 0; i < masters.size(); ++i)
            c.optimizer.push_back({"master.p" + std::to_string(i), masters[i].mutable_view()});
        return c;
    }
    void overwrite() {
        for (auto* all : {&values, &masters})
            for (auto& t : *all) std::ranges::fill(t.mutable_view().bytes(), std::byte{0x55});
    }

    std::vector<Tensor> values, masters;
    std::vector<Parameter> parameters;
    FakeModel<F32> draft;
};

const std::vector<std::int64_t> many{1, 3, 32, 0, 1'000'003, 17, 524'288, 262'143, 2'500'001, 5};
}  // namespace

TEST_CASE("a copy has every bit, and keeps it when the original changes") {
    for (const auto& sizes : {many, std::vector<std::int64_t>{7}, std::vector<std::int64_t>{}}) {
        State state(sizes), same(sizes);
        CheckpointSnapshot snapshot;
        const auto copy = snapshot.take(state.content());
        state.overwrite();
        const auto want = same.content();
        REQUIRE(copy.parameters.size() == want.parameters.size());
        REQUIRE(copy.optimizer.size() == want.optimizer.size());
        for (std::size_t i = 0; i < sizes.size(); ++i) {
            const auto &p = copy.parameters[i], &q = want.parameters[i];
            CHECK(p.name == q.name);
            CHECK(p.value.dtype == q.value.dtype);
            CHECK(p.value.shape == q.value.shape);
            CHECK(std::ranges::equal(p.value.bytes(), q.value.bytes()));
            CHECK(copy.optimizer[i].name == want.optimizer[i].name);
            CHECK(std::ranges::equal(copy.optimizer[i].buffer.bytes(),
                                     want.optimizer[i].buffer.bytes()));
        }
        CHECK(&copy.config == &state.draft.config());
        CHECK(&copy.vocab_map == &state.draft.vocab_map());
    }
}

TEST_CASE("a master that is its parameter's value is copied once, as AdamW's of an fp32 model") {
    FakeModel<F32> model;
    AdamW<Cpu> optimizer(model.device(), model.parameters());
    model.parameters()[0].value.as<float>()[0] = 3.f;
    const CheckpointContent content{model.parameters(), model.vocab_map(), model.config(),
                                    optimizer.state()};
    CheckpointSnapshot snapshot;
    const auto copy = snapshot.take(content);
    std::size_t room = 0;
    for (const auto& p : content.parameters)
        room += (p.value.size_bytes() + Tensor::alignment - 1) / Tensor::alignment *
                Tensor::alignment * (p.receives_gradient ? 3 : 1);
    CHECK(snapshot.bytes() == room);
    model.parameters()[0].value.as<float>()[0] = 4.f;
    CHECK(copy.optimizer[0].name == "master." + copy.parameters[0].name);
    CHECK(copy.optimizer[0].buffer.data == copy.parameters[0].value.data);
    CHECK(copy.optimizer[0].buffer.as<float>()[0] == 3.f);
    CHECK(copy.optimizer[1].buffer.data != copy.parameters[0].value.data);
}

TEST_CASE("the memory is taken once, and every later copy lies in it") {
    State state(many);
    CheckpointSnapshot snapshot;
    CHECK(snapshot.bytes() == 0);
    snapshot.reserve(state.content());
    const auto bytes = snapshot.bytes();
    std::size_t least = 0;
    for (const auto n : many) least += static_cast<std::size_t>(n) * 6;
    CHECK(bytes >= least);
    CHECK(bytes <= least + many.size() * 2 * Tensor::alignment);
    const auto* first = snapshot.take(state.content()).parameters[0].value.data;
    State other(many, 2);
    const auto again = snapshot.take(other.content());
    CHECK(again.parameters[0].value.data == first);
    CHECK(std::ranges::equal(again.optimizer[8].buffer.bytes(),
                             other.content().optimizer[8].buffer.bytes()));
    CHECK(snapshot.bytes() == bytes);
    State larger({4'000'000, 4'000'000});
    CHECK(std::ranges::equal(snapshot.take(larger.content()).parameters[1].value.bytes(),
                             larger.values[1].view().bytes()));
}

TEST_CASE("a checkpoint of the copy is the checkpoint of the original, byte for byte") {
    const RunDirectory run("snapshot");
    State state(many);
    const CheckpointState now{.step = 3, .optimizer_step = 3};
    const auto original = save_checkpoint(run.path() / "original", state.content(), now);
    CheckpointSnapshot snapshot;
    const auto copy = snapshot.take(state.content());
    state.overwrite();
    const auto copied = save_checkpoint(run.path() / "copy", copy, now);
    for (const char* file :
         {"model.safetensors", "optimizer.safetensors", "config.json", "state.json"})
        CHECK((read_text_file(original / file) == read_text_file(copied / file)));
}
