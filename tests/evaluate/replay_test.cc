#include "eyas/evaluate/replay.hpp"

#include <catch2/catch.hpp>

#include "tests/evaluate/tiny_world.hpp"

using namespace eyas;
using eyas::test::Ids;
using eyas::test::random_ids;
using eyas::test::TinyDraft;
using eyas::test::TinyTarget;
using World = eyas::test::TinyWorld;

namespace {

constexpr auto sizes = test::world_sizes;
constexpr std::int64_t length = 24;

/// A draft, and a row of features that it decodes along.
struct Fixture {
    TinyTarget target{sizes};
    TinyDraft draft{target, 2};
    DraftDecoder<Cpu> decoder = draft.decoder(target);
    Ids ids = random_ids(length, sizes.vocab, 4), ones = Ids(length, 1), document = Ids(length, 0);
    TargetStates states = target.model.forward(ids);

    Batch batch() const {
        const auto row = [](const Ids& v) {
            return TensorView{
                reinterpret_cast<const std::byte*>(v.data()), DType::I64, {1, length}};
        };
        const auto of_states = [](const Tensor& t) {
            return TensorView{t.view().data, DType::F32, {1, length, t.shape()[1]}};
        };
        return {
            row(ids), row(ones), row(ones),    of_states(states.captured), of_states(states.last),
            {},       {"text"},  row(document)};
    }
};

template <class Refused>
void check_refused(Fixture& f, const Batch& batch, const std::string& words) {
    Replay<Cpu> replay(f.decoder, DraftShape::chain(2));
    CHECK_THROWS_AS(replay.add(batch), Refused);
    CHECK_THROWS_WITH(replay.add(batch), Catch::Contains(words));
    CHECK(replay.finish().passes == 0);  // nothing of it was taken
}

}  // namespace

TEST_CASE("rows of several documents are not decoded as one text", "[evaluate]") {
    Fixture f;
    Replay<Cpu> replay(f.decoder, DraftShape::chain(2));
    auto alone = f.batch();
    alone.document.reset();
    replay.add(alone);
    const auto want = replay.finish();
    CHECK(want.tokens == length - 2);  // the first is the prompt, the second begins a round
    replay.add(f.batch());             // of one document, which is said
    const auto got = replay.finish();
    CHECK(got.passes == want.passes);
    CHECK(got.tokens == want.tokens);
    CHECK(got.accepted == want.accepted);
    for (const std::int64_t second : {std::int64_t{1}, length / 2, length - 1}) {
        std::fill(f.document.begin() + second, f.document.end(), second);
        check_refused<ContractError>(f, f.batch(), "Replay: several samples share a row");
        f.document.assign(length, 0);
    }
}

TEST_CASE("features of another target are not decoded along", "[evaluate]") {
    Fixture f;
    for (const std::int64_t id : {sizes.vocab, std::int64_t{-1}}) {
        const auto own = std::exchange(f.ids.back(), id);
        check_refused<DataError>(f, f.batch(), "token id " + std::to_string(id));
        f.ids.back() = own;
    }
    auto narrow = f.batch();
    narrow.hidden_state.shape = {1, length, 2 * sizes.width};
    check_refused<DataError>(f, narrow, "captured states are 64 wide, the draft's are 96");
    CHECK_THROWS_AS(Replay<Cpu>(f.decoder, DraftShape::chain(2), 0), ContractError);
    CHECK_THROWS_AS(Replay<Cpu>(f.decoder, DraftShape::chain(17)), ContractError);
}

TEST_CASE("decoding along greedy texts accepts what decoding them accepted", "[evaluate]") {
    auto& world = World::get();
    const auto from = test::prompts(24);
    SpeculativeOptions o;
    o.max_new_tokens = 60;
    for (const auto& shape :
         {DraftShape::chain(4), DraftShape::tree({3, 2, 1}), DraftShape::dynamic(4, 3, 7)}) {
        o.shape = shape;
        const auto told = test::decode(world.trained, from, o);
        auto draft = world.trained.decoder(world.target);
        Replay<Cpu> replay(draft, shape, 5);
        for (std::size_t i = 0; i < from.size(); ++i) {
            const auto& text = told.texts[i];
            // Rows of padding behind some texts change nothing.
            const auto tokens = std::ssize(text), rows = tokens + (i % 3 == 0 ? 4 : 0);
            const auto width = 3 * world.target.llama.width;
            Tensor ids = Tensor::zeros(DType::I64, {1, rows}),
                   attention = Tensor::zeros(DType::I64, {1, rows}),
                   loss = Tensor::zeros(DType::I64, {1, rows});
            Tensor states = Tensor::zeros(DType::F32, {1, rows, width});
            std::ranges::copy(text, ids.as<std::int64_t>().begin());
            std::fill_n(attention.as<std::int64_t>().begin(), tokens, 1);
            std::fill(loss.as<std::int64_t>().begin() + std::ssize(from[i]),
                      loss.as<std::int64_t>().begin() + tokens, 1);
            const auto captured = world.target.model.forward(text).captured;
            std::ranges::copy(captured.as<float>(), states.as<float>().begin());
            const Batch batch{ids, attention, loss, states, states, {}, {"text"}};
            replay.add(batch);
        }
        const auto along = replay.finish();
        CHECK(along.passes == told.all.passes);
        CHECK(along.tokens == told.all.tokens);
        CHECK(along.proposed == told.all.proposed);
        CHECK(along.accepted == told.all.accepted);
        CHECK(along.length() > 1);
        CHECK(replay.finish().passes == 0);  // nothing is counted twice
    }
}
