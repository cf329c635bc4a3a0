#include <catch2/catch.hpp>

#include "tests/evaluate/draft_root.hpp"

using namespace eyas;
using eyas::test::Ids;
using eyas::test::random_ids;
using eyas::test::scores;
using Pair = eyas::test::TinyPair;

namespace {
constexpr auto sizes = test::pair_sizes;
}  // namespace

TEST_CASE("sampled chains are draws from what they say", "[evaluate]") {
    Pair pair;
    const auto prompt = random_ids(12, sizes.vocab, 9);
    const SamplingOptions options{.temperature = 1.5, .top_p = 0.9, .seed = 5};
    auto cache = pair.room();
    auto r = pair.fed(prompt, cache);
    DraftTrees<Cpu> trees(pair.decoder, cache, DraftShape::chain(3), &options);
    Ids path;
    for (std::uint64_t id = 0; id < 3; ++id) {
        const auto root = r.root(id);
        const auto& t = trees.grow({&root, 1})[0];
        REQUIRE(t.distributions.size() == 3);
        CHECK(t.parents == Ids{-1, 0, 1});
        path.clear();
        for (std::size_t i = 0; i < 3; ++i) {
            const auto& q = t.distributions[i];
            std::vector<float> wide(static_cast<std::size_t>(sizes.vocab), -INFINITY);
            for (const auto& [token, p] : scores(pair, prompt, path))
                wide[static_cast<std::size_t>(token)] = static_cast<float>(p);
            TokenDistribution want;
            want.assign(wide, options);
            for (std::int64_t v = 0; v < sizes.vocab; ++v) CHECK(std::abs(want[v] - q[v]) < 1e-6);
            const auto position = static_cast<std::uint64_t>(r.position) + i;
            CHECK(t.tokens[i] == q.draw(keyed_uniform(5, id, position, 1)));
            CHECK(std::abs(t.log_probability[i] - (i ? t.log_probability[i - 1] : 0) -
                           std::log(q[t.tokens[i]])) < 1e-12);
            path.push_back(t.tokens[i]);
        }
    }
    CHECK_THROWS_AS(DraftTrees<Cpu>(pair.decoder, cache, DraftShape::tree({2}), &options),
                    ContractError);
}

TEST_CASE("a logit that is no number is told, of greedy drafts and of sampled ones", "[evaluate]") {
    Pair pair;
    for (const auto& p : pair.draft.model.parameters())
        if (p.name == "lm_head.weight") p.value.as<float>()[5 * sizes.width] = NAN;  // of one token
    auto decoder = pair.draft.decoder(pair.target);
    auto cache = pair.room();
    auto r = pair.fed({1, 2, 3}, cache);
    const auto root = r.root();
    const auto refused = [&](const DraftShape& shape, const SamplingOptions* sampled) {
        DraftTrees<Cpu> trees(decoder, cache, shape, sampled);
        CHECK_THROWS_AS(trees.grow({&root, 1}), DataError);
        CHECK_THROWS_WITH(trees.grow({&root, 1}),
                          Catch::Contains("DraftTrees: the draft: a logit is no number"));
    };
    refused(DraftShape::chain(2), nullptr);
    refused(DraftShape::tree({3, 2}), nullptr);
    for (const double temperature : {0.0, 1.0}) {
        const SamplingOptions options{.temperature = temperature};
        refused(DraftShape::chain(2), &options);
    }
}
