#include "eyas/evaluate/replay.hpp"

#include <catch2/catch.hpp>

#include "tests/evaluate/tiny_pair.hpp"

using namespace eyas;
using eyas::test::Ids;
using eyas::test::random_ids;
using eyas::test::TinyDraft;
using eyas::test::TinyTarget;

namespace {

constexpr test::TinySizes sizes{32, 48, 3, 4, 2, 12, 64};
constexpr std::int64_t tokens = 24;

/// A draft, and a row of features that it decodes along.
struct Fixture {
    TinyTarget target{sizes};
    TinyDraft draft{target, 2};
    DraftDecoder<Cpu> decoder = draft.decoder(target);
    Ids ids = random_ids(tokens, sizes.vocab, 4), ones = Ids(tokens, 1), document = Ids(tokens, 0);
    TargetStates states = target.model.forward(ids);

    Batch batch() const {
        const auto row = [](const Ids& v) {
            return TensorView{
                reinterpret_cast<const std::byte*>(v.data()), DType::I64, {1, tokens}};
        };
        const auto of_states = [](const Tensor& t) {
            return TensorView{t.view().data, DType::F32, {1, tokens, t.shape()[1]}};
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
    CHECK(want.tokens == tokens - 2);  // the first is the prompt, the second begins a round
    replay.add(f.batch());             // of one document, which is said
    const auto got = replay.finish();
    CHECK(got.passes == want.passes);
    CHECK(got.tokens == want.tokens);
    CHECK(got.accepted == want.accepted);
    for (const std::int64_t second : {std::int64_t{1}, tokens / 2, tokens - 1}) {
        std::fill(f.document.begin() + second, f.document.end(), second);
        check_refused<ContractError>(f, f.batch(), "Replay: several samples share a row");
        f.document.assign(tokens, 0);
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
    narrow.hidden_state.shape = {1, tokens, 2 * sizes.width};
    check_refused<DataError>(f, narrow, "captured states are 64 wide, the draft's are 96");
    CHECK_THROWS_AS(Replay<Cpu>(f.decoder, DraftShape::chain(2), 0), ContractError);
    CHECK_THROWS_AS(Replay<Cpu>(f.decoder, DraftShape::chain(17)), ContractError);
}
