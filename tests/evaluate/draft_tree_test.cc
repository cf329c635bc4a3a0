#include "eyas/evaluate/draft_tree.hpp"

#include <catch2/catch.hpp>
#include <map>

#include "tests/evaluate/draft_root.hpp"

using namespace eyas;
using eyas::test::Ids;
using eyas::test::random_ids;
using eyas::test::scores;
using Pair = eyas::test::TinyPair;

namespace {

constexpr auto sizes = test::pair_sizes;

/// A tree as a set: log probability by path.
using Paths = std::map<Ids, double>;
Ids path_of(const DraftTree& t, std::int64_t node) {
    Ids path;
    for (auto i = node; i >= 0; i = t.parents[static_cast<std::size_t>(i)])
        path.insert(path.begin(), t.tokens[static_cast<std::size_t>(i)]);
    return path;
}
Paths paths(const DraftTree& t) {
    Paths all;
    for (std::int64_t i = 0; i < t.size(); ++i) {
        const auto n = static_cast<std::size_t>(i);
        const auto path = path_of(t, i);
        CHECK(t.parents[n] < i);
        CHECK(t.depth[n] + 1 == std::ssize(path));
        CHECK(all.emplace(path, t.log_probability[n]).second);
    }
    return all;
}

/// The k best of paths; the test's numbers have no ties.
Paths best(const Paths& from, std::int64_t k) {
    std::vector<std::pair<double, Ids>> order;
    for (const auto& [path, p] : from) order.push_back({-p, path});
    std::ranges::sort(order);
    Paths all;
    for (const auto& [p, path] : order)
        if (std::ssize(all) < k) all[path] = -p;
    return all;
}

/// The tree that the papers describe, each node's children scored from the text's beginning.
Paths expected(Pair& pair, const Ids& prompt, const DraftShape& shape) {
    Paths all, level{{{}, 0.0}};
    for (auto width : shape.widths) {
        if (shape.beam > 0) level = best(level, shape.beam);
        Paths next;
        for (const auto& [path, p] : level) {
            Paths children;
            for (const auto& [token, q] : scores(pair, prompt, path)) {
                auto longer = path;
                longer.push_back(token);
                children[longer] = p + q;
            }
            for (const auto& child : best(children, width)) next.insert(child);
        }
        all.insert(next.begin(), next.end());
        level = next;
    }
    return shape.total > 0 ? best(all, shape.total) : all;
}

// Sums of 16 exponentials in fp32, each within an ulp or so: log errs by 2e-7, a path of 4 by 1e-6.
void check_same(const Paths& got, const Paths& want) {
    REQUIRE(got.size() == want.size());
    for (const auto& [path, p] : want) {
        REQUIRE(got.contains(path));
        CHECK(std::abs(got.at(path) - p) < 1e-6);
    }
}

}  // namespace

TEST_CASE("a tree is cut, thinned and searched", "[evaluate]") {
    // 0 and 1 follow the sequence; 2, 3 follow 0; 4 follows 1; 5 follows 3.
    DraftTree t{
        {7, 8, 7, 9, 7, 5}, {-1, -1, 0, 0, 1, 3}, {0, 0, 1, 1, 1, 2}, {-1, -2, -3, -4, -5, -6}, {}};
    CHECK(t.child(-1, 8) == 1);
    CHECK(t.child(0, 7) == 2);
    CHECK(t.child(1, 7) == 4);
    CHECK(t.child(3, 5) == 5);
    CHECK(t.child(-1, 9) == -1);
    CHECK(t.child(5, 7) == -1);
    CHECK(t.has_child(-1));
    CHECK(t.has_child(3));
    CHECK_FALSE(t.has_child(2));
    auto kept = t;
    kept.keep([](std::size_t i) { return i != 1 && i != 2 && i != 4; });
    CHECK(kept.tokens == Ids{7, 9, 5});
    CHECK(kept.parents == Ids{-1, 0, 1});
    CHECK(kept.depth == Ids{0, 1, 2});
    CHECK(kept.log_probability == std::vector<double>{-1, -4, -6});
    kept.keep([](std::size_t) { return false; });
    CHECK(kept.size() == 0);
    CHECK(kept.child(-1, 7) == -1);
    CHECK_FALSE(kept.has_child(-1));
}

TEST_CASE("trees are those of an enumeration", "[evaluate]") {
    Pair pair;
    const auto prompt = random_ids(21, sizes.vocab, 3);
    const auto shape = GENERATE(
        DraftShape::chain(4), DraftShape::tree({3, 2, 2}), DraftShape::tree({1, 5}),
        DraftShape::tree({16, 2}), DraftShape::dynamic(4, 3, 100), DraftShape::dynamic(4, 3, 8),
        DraftShape::dynamic(3, 6, 20), DraftShape::dynamic(3, 2, 1), DraftShape::dynamic(2, 4, 0),
        DraftShape::tree({40}));  // wider than the draft's vocabulary
    INFO(shape.text());
    auto cache = pair.room();
    auto r = pair.fed(prompt, cache);
    DraftTrees<Cpu> trees(pair.decoder, cache, shape);
    const auto root = r.root();
    const auto got = paths(trees.grow({&root, 1})[0]);
    check_same(got, expected(pair, prompt, shape));
    CHECK(r.sequence.length() == std::ssize(prompt) - 1);
    // Rows of an earlier tree are overwritten.
    CHECK(paths(trees.grow({&root, 1})[0]) == got);
}

TEST_CASE("several trees grow as each alone, and no deeper than their sequence allows",
          "[evaluate]") {
    Pair pair;
    const auto shape =
        GENERATE(DraftShape::chain(4), DraftShape::tree({3, 2, 1}), DraftShape::dynamic(4, 3, 9));
    auto cache = pair.room();
    DraftTrees<Cpu> trees(pair.decoder, cache, shape);
    std::vector<Pair::Root> all;
    std::vector<DraftRoot> roots;
    std::vector<Paths> alone;
    for (std::uint32_t i = 0; i < 5; ++i)
        all.push_back(pair.fed(random_ids(2 + 15 * i, sizes.vocab, i), cache));
    for (auto& r : all) {
        roots.push_back(r.root());
        alone.push_back(paths(trees.grow({&roots.back(), 1})[0]));
    }
    const auto together = trees.grow(roots);
    REQUIRE(together.size() == 5);
    for (std::size_t i = 0; i < 5; ++i) CHECK(paths(together[i]) == alone[i]);
    if (shape.total > 0) return;  // what a lower tree keeps of a total differs
    for (std::size_t i = 0; i < 5; ++i) roots[i].levels = 2 - static_cast<std::int64_t>(i) / 2;
    const auto lower = trees.grow(roots);
    for (std::size_t i = 0; i < 5; ++i) {
        auto want = alone[i];
        std::erase_if(want, [&](const auto& p) { return std::ssize(p.first) > roots[i].levels; });
        CHECK(paths(lower[i]) == want);
    }
}

TEST_CASE("what the draft is not sure of is proposed, but not expanded", "[evaluate]") {
    Pair pair;
    auto shape = GENERATE(DraftShape::chain(5), DraftShape::tree({3, 2, 2}));
    auto cache = pair.room();
    auto r = pair.fed(random_ids(21, sizes.vocab, 3), cache);
    const auto root = r.root();
    DraftTrees<Cpu> all(pair.decoder, cache, shape);
    const auto whole = paths(all.grow({&root, 1})[0]);
    for (const double confidence : {0.9, 0.2, 0.05, 0.01, 1e-30}) {
        shape.confidence = confidence;
        auto want = whole;
        std::erase_if(want, [&](const auto& node) {
            auto path = node.first;
            for (path.pop_back(); !path.empty(); path.pop_back())
                if (whole.at(path) < std::log(confidence)) return true;
            return false;
        });
        DraftTrees<Cpu> trees(pair.decoder, cache, shape);
        CHECK(paths(trees.grow({&root, 1})[0]) == want);
        CHECK((confidence < 0.9 || want.size() < whole.size()));
        CHECK((confidence > 1e-30 || want.size() == whole.size()));
    }
}

TEST_CASE("a draft of no levels asks nothing of the draft", "[evaluate]") {
    Pair pair;
    auto cache = pair.room();
    auto r = pair.fed({1, 2, 3}, cache);
    DraftTrees<Cpu> trees(pair.decoder, cache, DraftShape::tree({2, 2}));
    auto root = r.root();
    root.levels = 0;
    CHECK(trees.grow({&root, 1})[0].size() == 0);
    CHECK(trees.grow({}).empty());
}

TEST_CASE("equal tokens are taken by their ids", "[evaluate]") {
    Pair pair;
    for (const auto& p : pair.draft.model.parameters())
        if (p.name == "lm_head.weight")
            std::ranges::fill(p.value.as<float>(), 0.f);  // every token is as probable
    auto decoder = pair.draft.decoder(pair.target);
    auto cache = pair.room();
    auto r = pair.fed({1, 2, 3}, cache);
    const auto grown = [&](const DraftShape& shape) {
        DraftTrees<Cpu> trees(decoder, cache, shape);
        const auto root = r.root();
        return DraftTree(trees.grow({&root, 1})[0]);
    };
    const auto id = [&](std::int64_t draft_id) { return pair.draft.map.target_id(draft_id); };
    CHECK(grown(DraftShape::chain(2)).tokens == Ids{id(0), id(0)});
    CHECK(grown(DraftShape::tree({3})).tokens == Ids{id(0), id(1), id(2)});
    const auto t = grown(DraftShape::dynamic(2, 2, 4));
    CHECK(t.tokens == Ids{id(0), id(1), id(0), id(1)});
    CHECK(t.parents == Ids{-1, -1, 0, 0});
}
