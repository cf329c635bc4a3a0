#include "eyas/evaluate/draft_tree.hpp"

#include <catch2/catch.hpp>
#include <map>

#include "eyas/evaluate/acceptance.hpp"
#include "tests/evaluate/tiny_pair.hpp"

using namespace eyas;
using eyas::test::Ids;
using eyas::test::random_ids;
using eyas::test::TinyDraft;
using eyas::test::TinyTarget;

namespace {

constexpr test::TinySizes sizes{32, 48, 3, 4, 2, 12, 64};

/// A target, a draft with 16 ids of 64, and the states of a prompt.
struct Pair {
    TinyTarget target{sizes};
    TinyDraft draft{target, 4};
    DraftDecoder<Cpu> decoder = draft.decoder(target);

    /// A prompt's rows in a cache: the place where trees begin.
    struct Root {
        KvCache::Sequence sequence;
        std::vector<float> state;
        std::int64_t position = 0;
        DraftRoot root(std::uint64_t id = 0) { return {&sequence, state.data(), id, position}; }
    };
    /// Rows of the prompt, then of `path` (a row's state goes into the next), one by one, as a
    /// text.
    Root fed(const Ids& prompt, KvCache& cache, const Ids& path = {}) {
        const auto d = sizes.width, n = std::ssize(prompt) - 1;
        const auto states = target.model.forward(prompt);
        std::vector<float> x(static_cast<std::size_t>(n * d));
        decoder.project(states.captured.as<float>().data(), n, x.data());
        Root r;
        const NewRows rows{&r.sequence, n};
        decoder.forward(x.data(), std::span(prompt).subspan(1), {&rows, 1}, cache, x.data());
        r.state.assign(x.end() - d, x.end());
        for (const auto& token : path) {
            const NewRows one{&r.sequence, 1};
            decoder.forward(r.state.data(), {&token, 1}, {&one, 1}, cache, r.state.data());
        }
        r.position = std::ssize(prompt) + std::ssize(path);
        return r;
    }
    KvCache room() { return decoder.make_cache(4096); }
};

/// Log probability of each target id that has a draft id, after prompt and path; from a text
/// decoded from its beginning, softmax in double.
using Scores = std::map<std::int64_t, double>;
Scores scores(Pair& pair, const Ids& prompt, const Ids& path) {
    auto cache = pair.room();
    const auto r = pair.fed(prompt, cache, path);
    std::vector<float> z(static_cast<std::size_t>(pair.draft.map.draft_vocab_size()));
    pair.decoder.logits(r.state.data(), 1, z.data());
    double sum = 0;
    for (auto v : z) sum += std::exp(static_cast<double>(v));
    Scores all;
    for (std::size_t w = 0; w < z.size(); ++w)
        all[pair.draft.map.target_id(static_cast<std::int64_t>(w))] =
            static_cast<double>(z[w]) - std::log(sum);
    return all;
}

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

TEST_CASE("shapes are read and written", "[evaluate]") {
    for (const char* text :
         {"chain:1", "chain:16", "tree:4,2,1", "tree:3", "dynamic:6,8,32", "dynamic:1,1,1",
          "dynamic:3,1,2", "tree:1024", "chain:5@0.4", "dynamic:6,8,32@0.05"})
        CHECK(parse_draft_shape(text).text() == text);
    CHECK(parse_draft_shape("tree:1,1").text() == "chain:2");
    CHECK(parse_draft_shape("chain:5@0.4").confidence == 0.4);
    CHECK(parse_draft_shape("chain:5@0").text() == "chain:5");
    for (const char* text : {"",
                             "chain",
                             "chain:",
                             "chain:0",
                             "chain:-1",
                             "chain:+1",
                             "chain:17",
                             "chain:2,2",
                             "chain:5,",
                             "chain:5x",
                             "chain: 5",
                             "tree:",
                             "tree:4,,2",
                             "tree:,4",
                             "tree:4,",
                             "tree:0,1",
                             "tree:1025",
                             "tree:32,33",
                             "tree:1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
                             "tree:31,31,2",
                             "dynamic:6,8",
                             "dynamic:6,8,32,1",
                             "dynamic:6,0,32",
                             "dynamic:6,8,0",
                             "dynamic:17,1,1",
                             "dynamic:2,33,9",
                             "chain:99999999999999999999",
                             "chain:5@",
                             "chain:5@x",
                             "chain:5@0.4x",
                             "chain:5@1",
                             "chain:5@-0.1",
                             "chain:5@nan",
                             "chain:5@inf",
                             "chain@0.4:5",
                             "@0.4",
                             "bush:3",
                             "Chain:3",
                             ":3"}) {
        INFO(text);
        CHECK_THROWS_AS(parse_draft_shape(text), ContractError);
    }
    CHECK_THROWS_WITH(parse_draft_shape("bush:3"), Catch::Contains("bush:3"));
    CHECK_NOTHROW(DraftShape::none().check());  // plain decoding
    CHECK_THROWS_AS(DraftShape::chain(-1), ContractError);
    CHECK_THROWS_AS((DraftShape{{2, 2}, -1, 0}).check(), ContractError);
    CHECK_THROWS_AS((DraftShape{{2, 2}, 2, -1}).check(), ContractError);
    // Without a total, all nodes: what is written means the same.
    CHECK(parse_draft_shape(DraftShape::dynamic(3, 4, 0).text()).nodes() == 4 + 16 + 16);
}

TEST_CASE("numbers of nodes and of rows", "[evaluate]") {
    CHECK(DraftShape::chain(5).nodes() == 5);
    CHECK(DraftShape::chain(5).expanded() == 4);
    CHECK(DraftShape::tree({4, 2, 1}).nodes() == 4 + 8 + 8);
    CHECK(DraftShape::tree({4, 2, 1}).expanded() == 4 + 8);
    CHECK(DraftShape::dynamic(3, 4, 10).nodes() == 10);
    CHECK(DraftShape::dynamic(3, 4, 1000).nodes() == 4 + 16 + 16);
    CHECK(DraftShape::dynamic(3, 4, 10).expanded() == 8);
}

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

TEST_CASE("acceptance counts what was judged", "[evaluate]") {
    Acceptance a;
    CHECK(a.length() == 0);
    CHECK(a.rate(0) == 0);  // nothing was proposed
    a.add_pass(0, 0, 1);    // a pass without a draft
    CHECK(a.length() == 1);
    CHECK(a.rate(0) == 0);
    a.add_pass(1, 1, 2);  // accepted, and the draft ended there
    a.add_pass(1, 0, 1);  // refused at once
    a.add_pass(3, 2, 3);  // refused at the third
    CHECK(a.proposed == Ids{3, 1, 1});
    CHECK(a.accepted == Ids{2, 1, 0});
    CHECK(a.rate(0) == 2.0 / 3);
    CHECK(a.rate(1) == 1);
    CHECK(a.rate(2) == 0);
    CHECK(a.rate(3) == 0);
    CHECK(a.length() == 7.0 / 4);
    Acceptance sum;
    sum.add(a), sum.add({}), sum.add(a);
    CHECK(sum.passes == 8);
    CHECK(sum.tokens == 14);
    CHECK(sum.proposed == Ids{6, 2, 2});
    CHECK(sum.accepted == Ids{4, 2, 0});
}
