#include "eyas/evaluate/speculative_decoder.hpp"

#include <catch2/catch.hpp>

#include "tests/evaluate/tiny_world.hpp"

using namespace eyas;
using eyas::test::decode;
using eyas::test::Ids;
using eyas::test::plain;
using eyas::test::prompts;
using eyas::test::random_ids;
using eyas::test::TinyDraft;
using eyas::test::TinyTarget;
using eyas::test::Told;
using World = eyas::test::TinyWorld;

namespace {

constexpr auto sizes = test::world_sizes;
constexpr auto positions = test::world_positions;

/// The first token of a text is the target's alone; all others come from passes.
void check_counts(const Told& told, const std::vector<Ids>& from, const DraftShape& shape) {
    Acceptance sum;
    for (std::size_t i = 0; i < from.size(); ++i) {
        const auto& a = told.each[i];
        CHECK(a.tokens == std::ssize(told.texts[i]) - std::ssize(from[i]) - 1);
        CHECK(a.passes <= a.tokens);
        CHECK(std::ssize(a.proposed) <= shape.depth());
        std::int64_t accepted = 0;
        for (std::size_t d = 0; d < a.proposed.size(); ++d) {
            CHECK(a.accepted[d] <= a.proposed[d]);
            CHECK(a.proposed[d] <= (d == 0 ? a.passes : a.accepted[d - 1]));
            accepted += a.accepted[d];
        }
        // Each pass yields what it accepted and a token of the target's, but for the end of a text
        // that a stop id among the accepted makes.
        CHECK(a.tokens <= accepted + a.passes);
        CHECK(a.tokens >= accepted + a.passes - 1);
        sum.add(a);
    }
    CHECK(sum.passes == told.all.passes);
    CHECK(sum.tokens == told.all.tokens);
    CHECK(sum.proposed == told.all.proposed);
    CHECK(sum.accepted == told.all.accepted);
}

const DraftShape shapes[] = {DraftShape::chain(5), DraftShape::tree({3, 2, 1, 1}),
                             DraftShape::dynamic(5, 4, 12), parse_draft_shape("chain:5@0.2")};

}  // namespace

TEST_CASE("200 prompts of 128 tokens come out as the target decodes them", "[evaluate]") {
    auto& world = World::get();
    REQUIRE(world.target.model.row_invariant());
    const auto from = prompts(200);
    SpeculativeOptions o;
    o.sequences = 40;
    if (GENERATE(false, true)) o.sampling = {.temperature = 0.4, .top_p = 0.9, .seed = 11};
    o.max_new_tokens = 128, o.shape = DraftShape::dynamic(5, 3, 10);
    const auto told = decode(world.trained, from, o);
    CHECK(told.texts == plain(world.target.model, from, o));
    check_counts(told, from, o.shape);
    REQUIRE(told.all.accepted.size() == 5);  // tokens of every depth were accepted, and refused
    for (std::size_t d = 0; d < 5; ++d) CHECK(told.all.accepted[d] > 10);
    CHECK(told.all.accepted[0] < told.all.proposed[0]);
    o.max_new_tokens = 32, o.shape = DraftShape::chain(2);
    const auto refused = decode(world.random, from, o);  // nearly all of it
    CHECK(refused.texts == plain(world.target.model, from, o));
    check_counts(refused, from, o.shape);
    CHECK(told.all.length() > 1.2 * refused.all.length());
}

TEST_CASE("under Bf16 texts come out as the same target decodes them alone", "[evaluate]") {
    auto& world = World::get();
    auto target = world.target.load<Bf16>(positions);
    REQUIRE(target.row_invariant());
    const auto from = prompts(40);
    SpeculativeOptions o;
    o.sequences = 8, o.max_new_tokens = 48;
    o.shape = GENERATE(from_range(std::begin(shapes), std::end(shapes)));
    if (GENERATE(false, true)) o.sampling = {.temperature = 0.4, .top_p = 0.9, .seed = 11};
    const auto told = decode(world.trained, from, o, target);
    CHECK(told.texts == plain(target, from, o));
    check_counts(told, from, o.shape);
    CHECK(told.all.accepted[0] > 10);  // of a draft that learned from the target in fp32
}

TEST_CASE("every shape, alone and side by side, gives the target's texts", "[evaluate]") {
    auto& world = World::get();
    const auto from = prompts(9);
    SpeculativeOptions o;
    o.max_new_tokens = 24;
    o.shape = GENERATE(from_range(std::begin(shapes), std::end(shapes)));
    if (GENERATE(false, true)) o.sampling = {.temperature = 1, .top_p = 0.95, .seed = 3};
    INFO(o.shape.text() << ", temperature " << o.sampling.temperature);
    const auto want = plain(world.target.model, from, o);
    for (auto* draft : {&world.random, &world.trained})
        for (const std::int64_t sequences : {1, 5, 40}) {
            o.sequences = sequences;
            const auto told = decode(*draft, from, o);
            CHECK(told.texts == want);
            check_counts(told, from, o.shape);
        }
}

TEST_CASE("stop ids end a text wherever they come", "[evaluate]") {
    auto& world = World::get();
    const auto from = prompts(40);
    SpeculativeOptions o;
    o.max_new_tokens = 60, o.sequences = 5;
    o.sampling = {.temperature = 0.7, .seed = 5};
    const auto whole = plain(world.target.model, from, o);
    for (std::int64_t id = 0; id < sizes.vocab; id += 5) o.stop_ids.push_back(id);
    const auto want = plain(world.target.model, from, o);
    std::size_t first = 0, whole_length = 0;
    for (std::size_t i = 0; i < from.size(); ++i) {
        first += want[i].size() == from[i].size() + 1;
        whole_length += want[i].size() == whole[i].size();
    }
    REQUIRE(first > 0);  // a text's first token is a stop id
    REQUIRE(whole_length < from.size());
    for (const auto& shape : shapes) {
        o.shape = shape;
        const auto told = decode(world.trained, from, o);
        CHECK(told.texts == want);
        check_counts(told, from, o.shape);
        // Some text ended with an accepted token, which no token of the target's follows.
        std::int64_t accepted = 0;
        for (auto n : told.all.accepted) accepted += n;
        CHECK(told.all.tokens < accepted + told.all.passes);
    }
}

TEST_CASE("one token and the last positions", "[evaluate]") {
    auto& world = World::get();
    SpeculativeOptions o;
    o.shape = GENERATE(from_range(std::begin(shapes), std::end(shapes)));
    o.sequences = GENERATE(1, 4);
    SECTION("one new token needs no pass") {
        o.max_new_tokens = 1;
        const auto from = prompts(9);
        const auto told = decode(world.trained, from, o);
        CHECK(told.texts == plain(world.target.model, from, o));
        CHECK(told.all.passes == 0);
        CHECK(told.all.length() == 0);
    }
    SECTION("few new tokens") {
        const auto from = prompts(9);
        for (const std::int64_t n : {2, 3, 5}) {
            o.max_new_tokens = n;
            const auto told = decode(world.trained, from, o);
            CHECK(told.texts == plain(world.target.model, from, o));
            check_counts(told, from, o.shape);
        }
    }
    SECTION("texts that fill the model's positions") {
        std::vector<Ids> from;
        for (std::int64_t n = positions - 1; n > positions - 12; --n)
            from.push_back(random_ids(n, sizes.vocab, static_cast<std::uint32_t>(n)));
        const auto told = decode(world.trained, from, o);
        for (const auto& text : told.texts) CHECK(std::ssize(text) == positions);
        CHECK(told.texts == plain(world.target.model, from, o));
        check_counts(told, from, o.shape);
    }
}

TEST_CASE("a draft with fewer positions than its target ends a text at them", "[evaluate]") {
    auto& world = World::get();
    constexpr std::int64_t fewer = 50;
    TinyDraft small(world.target, 2, {{"max_position_embeddings", fewer}});
    auto draft = small.decoder(world.target);
    CHECK(decodable_positions(world.target.model.config(), draft.config()) == fewer);
    SpeculativeOptions o;
    o.shape = GENERATE(from_range(std::begin(shapes), std::end(shapes)));
    SpeculativeDecoder<Cpu> decoder(world.target.model, draft, o);
    CHECK_THROWS_WITH(decoder.run(std::vector<Ids>{random_ids(fewer, sizes.vocab, 1)}),
                      Catch::Contains("Give 1 to 49 tokens"));
    const std::vector<Ids> from{random_ids(fewer - 1, sizes.vocab, 1),
                                random_ids(fewer - 9, sizes.vocab, 2)};
    const auto want = plain(world.target.model, from, o);
    std::int64_t told = 0;
    decoder.run(from, [&](const DecodedText& t) {
        ++told;
        CHECK(t.input_ids == Ids(want[t.index].begin(), want[t.index].begin() + fewer));
    });
    CHECK(told == 2);
}

TEST_CASE("a wide dynamic tree finds room in the cache for what it does not verify", "[evaluate]") {
    auto& world = World::get();
    SpeculativeOptions o;
    o.shape = DraftShape::dynamic(16, 24, 3), o.max_new_tokens = 24;
    const std::vector<Ids> from{random_ids(positions - 30, sizes.vocab, 1)};
    CHECK(decode(world.trained, from, o).texts == plain(world.target.model, from, o));
}

TEST_CASE("what is refused leaves the decoder as it was", "[evaluate]") {
    auto& world = World::get();
    auto draft = world.trained.decoder(world.target);
    SpeculativeOptions o;
    o.max_new_tokens = 20, o.sequences = 2;
    SpeculativeDecoder<Cpu> decoder(world.target.model, draft, o);
    const auto good = prompts(5);
    const auto want = plain(world.target.model, good, o);
    const auto again = [&] {
        std::vector<Ids> texts(good.size());
        decoder.run(good, [&](const auto& t) { texts[t.index] = t.input_ids; });
        CHECK(texts == want);
    };
    const auto refused = [&](const Ids& prompt, const char* words) {
        auto some = good;
        some.insert(some.begin() + 3, prompt);
        int told = 0;
        CHECK_THROWS_AS(decoder.run(some, [&](const auto&) { ++told; }), DataError);
        CHECK_THROWS_WITH(decoder.run(some), Catch::Contains("prompt 3") && Catch::Contains(words));
        CHECK(told == 0);
        again();
    };
    again();
    refused({}, "0 tokens");
    refused(random_ids(positions, sizes.vocab, 1), "192 tokens");
    refused({1, sizes.vocab}, "id 64");
    refused({-1, 2}, "id -1");
    // Whoever is told may throw. Caches that kept pages of it would be full after some.
    for (int i = 0; i < 40; ++i)
        CHECK_THROWS_AS(decoder.run(std::vector(3, random_ids(150, sizes.vocab, 1)),
                                    [](const auto&) { throw std::runtime_error("enough"); }),
                        std::runtime_error);
    again();
    CHECK(decoder.run({}).passes == 0);
}

TEST_CASE("a stop is looked at between rounds", "[evaluate]") {
    auto& world = World::get();
    auto draft = world.trained.decoder(world.target);
    std::atomic<bool> stop = false;
    SpeculativeOptions o;
    o.max_new_tokens = 20, o.stop = &stop;
    SpeculativeDecoder<Cpu> decoder(world.target.model, draft, o);
    int told = 0;
    const auto sums = decoder.run(prompts(5), [&](const auto&) { stop = ++told == 2; });
    CHECK(told == 2);
    CHECK(sums.tokens == 2 * 19);
    CHECK(decoder.run(prompts(5)).passes == 0);
    stop = false;
    CHECK(decoder.run(prompts(5)).tokens == 5 * 19);
}

TEST_CASE("options and drafts that do not fit are refused", "[evaluate]") {
    auto& world = World::get();
    auto draft = world.random.decoder(world.target);
    const auto with = [&](const auto& change) {
        SpeculativeOptions o;
        change(o);
        SpeculativeDecoder<Cpu>(world.target.model, draft, o);
    };
    with([](auto&) {});
    CHECK_THROWS_AS(with([](auto& o) { o.max_new_tokens = 0; }), ContractError);
    CHECK_THROWS_AS(with([](auto& o) { o.sequences = 0; }), ContractError);
    CHECK_THROWS_AS(with([](auto& o) { o.sampling.temperature = -1; }), ContractError);
    CHECK_THROWS_AS(with([](auto& o) { o.sampling.top_p = 0; }), ContractError);
    const auto vocab = world.target.model.config().vocab_size;
    CHECK_NOTHROW(with([&](auto& o) { o.stop_ids = {vocab - 1}; }));
    CHECK_THROWS_AS(with([&](auto& o) { o.stop_ids = {3, vocab}; }), ContractError);
    // Options tell by themselves what does not go together, before there is a model.
    SpeculativeOptions tree;
    tree.shape = DraftShape::tree({2, 2}), tree.verification = Verification::Rejection;
    CHECK_THROWS_AS(tree.check(), ContractError);
    CHECK_THROWS_WITH(tree.check(), Catch::Contains("rejection sampling of tree:2,2"));
    CHECK_THROWS_AS(with([&](auto& o) { o = tree; }), ContractError);
    const auto of_other = [&](test::TinySizes other) {
        TinyTarget target(other, positions);
        TinyDraft alien(target);
        auto decoder = alien.decoder(target);
        SpeculativeDecoder<Cpu>(world.target.model, decoder, {});
    };
    CHECK_THROWS_AS(of_other({32, 48, 3, 4, 2, 12, 80}), DataError);
    CHECK_THROWS_AS(of_other({48, 48, 3, 4, 2, 12, 64}), DataError);
}
