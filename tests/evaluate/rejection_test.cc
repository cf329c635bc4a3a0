#include <catch2/catch.hpp>

#include "eyas/evaluate/speculative_decoder.hpp"
#include "tests/evaluate/tiny_pair.hpp"

// Rejection sampling yields texts distributed as the target's own. Draws are keyed by the number of
// the text, so each number is another draw and the tests are deterministic; chance alone would fail
// one in a million (plausible()).

using namespace eyas;
using eyas::test::Ids;
using eyas::test::plausible;
using eyas::test::TinyDraft;
using eyas::test::TinyTarget;

namespace {

std::vector<float> random_logits(std::size_t n, std::uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 1.5f);
    std::vector<float> z(n);
    for (auto& x : z) x = normal(random);
    return z;
}

/// Two positions of a vocabulary of 6 where the next token depends on the one before: the target's
/// logits and the draft's, which knows nothing of the last two ids.
struct Chain {
    static constexpr std::int64_t V = 6;
    SamplingOptions options{.temperature = 1.2, .top_p = 0.97, .seed = 4};

    std::vector<float> target(std::int64_t before) const {
        return random_logits(V, static_cast<std::uint32_t>(50 + before));
    }
    std::vector<float> draft(std::int64_t before) const {
        auto z = random_logits(V, static_cast<std::uint32_t>(90 + before));
        z[4] = z[5] = -INFINITY;
        return z;
    }
    TokenDistribution of(const std::vector<float>& logits) const {
        TokenDistribution p;
        p.assign(logits, options);
        return p;
    }

    /// A draft of two tokens, drawn for text `id`.
    DraftTree propose(std::uint64_t id) const {
        DraftTree t;
        std::int64_t before = -1;
        for (std::int64_t i = 0; i < 2; ++i) {
            auto q = of(draft(before));
            before = q.draw(keyed_uniform(options.seed, id, static_cast<std::uint64_t>(i), 1));
            t.tokens.push_back(before), t.parents.push_back(i - 1), t.depth.push_back(i);
            t.log_probability.push_back(0), t.distributions.push_back(std::move(q));
        }
        return t;
    }

    /// Counts of texts [a][b][c] of which at least one token comes from each round; what a round
    /// leaves open the target draws itself.
    template <class Judge>
    std::vector<double> counts(std::int64_t n, const Judge& judge) const {
        std::vector<double> all(V * V * V);
        for (std::int64_t id = 0; id < n; ++id) {
            const auto tree = propose(static_cast<std::uint64_t>(id));
            const auto rows = [&](std::int64_t i) {
                return target(i == 0 ? -1 : tree.tokens[static_cast<std::size_t>(i - 1)]);
            };
            const Verdict v = judge(tree, rows, static_cast<std::uint64_t>(id));
            Ids text;
            for (auto node : v.path) text.push_back(tree.tokens[static_cast<std::size_t>(node)]);
            for (text.push_back(v.next); text.size() < 3;)
                text.push_back(
                    of(target(text.back()))
                        .draw(keyed_uniform(99, static_cast<std::uint64_t>(id), text.size())));
            all[static_cast<std::size_t>((text[0] * V + text[1]) * V + text[2])] += 1;
        }
        return all;
    }
    std::vector<double> expected(std::int64_t n) const {
        std::vector<double> all;
        const auto first = of(target(-1));
        for (std::int64_t a = 0; a < V; ++a)
            for (std::int64_t b = 0; b < V; ++b)
                for (std::int64_t c = 0; c < V; ++c)
                    all.push_back(static_cast<double>(n) * first[a] * of(target(a))[b] *
                                  of(target(b))[c]);
        return all;
    }
};

}  // namespace

TEST_CASE("the rule itself, and rules that are wrong", "[evaluate]") {
    const Chain chain;
    const std::int64_t n = 20000;
    const auto expected = chain.expected(n);
    const auto right = [&](const DraftTree& t, const auto& rows, std::uint64_t id) {
        return reject(t, rows, chain.options, id, 0);
    };
    CHECK(plausible(chain.counts(n, right), expected));
    const auto always = [&](const DraftTree&, const auto& rows, std::uint64_t id) {
        return Verdict{{0, 1}, chain.of(rows(2)).draw(keyed_uniform(7, id, 0))};
    };
    CHECK_FALSE(plausible(chain.counts(n, always), expected));
    // Refused as it should be, but the next token is drawn from all of p instead of what remains.
    const auto remainder_forgotten = [&](const DraftTree& t, const auto& rows, std::uint64_t id) {
        auto v = right(t, rows, id);
        const auto taken = std::ssize(v.path);
        if (taken < t.size()) v.next = chain.of(rows(taken)).draw(keyed_uniform(7, id, 0));
        return v;
    };
    CHECK_FALSE(plausible(chain.counts(n, remainder_forgotten), expected));
    // The number that drew the draft token also judges it.
    const auto number_used_twice = [&](const DraftTree& t, const auto& rows, std::uint64_t id) {
        Verdict v;
        const auto p = chain.of(rows(0));
        const auto& q = t.distributions[0];
        const auto token = t.tokens[0];
        if (keyed_uniform(chain.options.seed, id, 0, 1) * q[token] < p[token]) {
            v.path = {0}, v.next = chain.of(rows(1)).draw(keyed_uniform(7, id, 0));
            return v;
        }
        auto rest = p;
        rest.subtract(q);
        v.next = rest.draw(keyed_uniform(7, id, 1));
        return v;
    };
    CHECK_FALSE(plausible(chain.counts(n, number_used_twice), expected));
}

TEST_CASE("a draft that is the target is accepted whole, a greedy one where it is right",
          "[evaluate]") {
    Chain chain;
    auto tree = chain.propose(1);
    const auto own = [&](std::int64_t i) {
        return chain.draft(i == 0 ? -1 : tree.tokens[static_cast<std::size_t>(i - 1)]);
    };
    CHECK(reject(tree, own, chain.options, 1, 0).path == Ids{0, 1});
    chain.options.temperature = 0;
    tree = chain.propose(1);
    CHECK(reject(tree, own, chain.options, 1, 0).path == Ids{0, 1});
    const auto other = [&](std::int64_t) {
        std::vector<float> z(Chain::V);
        z[5] = 1;
        return z;
    };
    const auto v = reject(tree, other, chain.options, 1, 0);
    CHECK(v.path.empty());
    CHECK(v.next == 5);
}

namespace {

constexpr test::TinySizes sizes{16, 32, 3, 2, 1, 16, 16};

/// Probabilities [V^n] of the target's first n tokens after a prompt, each from a whole forward.
std::vector<double> distribution(TargetModel<Cpu>& target, const Ids& prompt, int n,
                                 const SamplingOptions& options) {
    const auto states = target.forward(prompt);
    const auto logits = target.logits(states.last);
    TokenDistribution p;
    p.assign(logits.as<float>().last(static_cast<std::size_t>(sizes.vocab)), options);
    std::vector<double> all;
    for (std::int64_t token = 0; token < sizes.vocab; ++token) {
        auto longer = prompt;
        longer.push_back(token);
        const auto cells = static_cast<std::size_t>(std::pow(sizes.vocab, n - 1));
        const auto rest = n == 1         ? std::vector<double>{1}
                          : p[token] > 0 ? distribution(target, longer, n - 1, options)
                                         : std::vector<double>(cells, 0.0);
        for (auto q : rest) all.push_back(p[token] * q);
    }
    return all;
}

struct World {
    TinyTarget target{sizes, 64, 3};
    TinyDraft random{target, 2}, trained{target};
    Ids prompt{3, 9, 1};
    World() {
        std::vector<Ids> texts;
        std::mt19937 random_number(1);
        for (int i = 0; i < 16; ++i) {  // drawn from the target, token by token
            Ids text{static_cast<std::int64_t>(random_number() % 16)};
            while (text.size() < 24) {
                const auto logits = target.model.logits(target.model.forward(text).last);
                TokenDistribution p;
                p.assign(logits.as<float>().last(16), {.temperature = 1});
                text.push_back(p.draw(static_cast<double>(random_number()) * 0x1p-32));
            }
            texts.push_back(text);
        }
        trained.train(target, texts, 100);
    }
    static World& get() {
        static World world;
        return world;
    }
};

struct Drawn {
    std::vector<double> counts;  // of the first n new tokens
    Acceptance all;
};
Drawn draw(TinyDraft& draft, std::int64_t texts, int n, SpeculativeOptions o) {
    auto& world = World::get();
    auto decoder = draft.decoder(world.target);
    o.sequences = 64;
    SpeculativeDecoder<Cpu> speculative(world.target.model, decoder, o);
    Drawn d{std::vector<double>(static_cast<std::size_t>(std::pow(sizes.vocab, n))), {}};
    const std::vector<Ids> prompts(static_cast<std::size_t>(texts), world.prompt);
    d.all = speculative.run(prompts, [&](const DecodedText& t) {
        std::int64_t cell = 0;
        for (int i = 0; i < n; ++i)
            cell = cell * sizes.vocab + t.input_ids[static_cast<std::size_t>(t.prompt_tokens) +
                                                    static_cast<std::size_t>(i)];
        d.counts[static_cast<std::size_t>(cell)] += 1;
    });
    return d;
}

}  // namespace

TEST_CASE("decoded texts are distributed as the target's", "[evaluate]") {
    auto& world = World::get();
    SpeculativeOptions o;
    o.verification = Verification::Rejection, o.shape = DraftShape::chain(2);
    o.sampling = {.temperature = 1.1, .top_p = 0.9, .seed = 21};
    o.max_new_tokens = 4;  // the target's own, then a chain of two and what follows
    const std::int64_t n = 4000;
    auto expected = distribution(world.target.model, world.prompt, 3, o.sampling);
    for (auto& e : expected) e *= static_cast<double>(n);
    // Chains that end where the draft is not sure, too.
    o.shape.confidence = 0.3;
    CHECK(plausible(draw(world.trained, n, 3, o).counts, expected));
    o.shape.confidence = 0;
    for (auto* draft : {&world.random, &world.trained}) {
        const auto drawn = draw(*draft, n, 3, o);
        CHECK(plausible(drawn.counts, expected));
        for (std::size_t d = 0; d < 2; ++d) {
            CHECK(drawn.all.rate(d) > 0.05);
            CHECK(drawn.all.rate(d) < 0.99);
        }
    }
    // Texts of another temperature are told apart.
    o.sampling.temperature = 1.6;
    CHECK_FALSE(plausible(draw(world.trained, n, 3, o).counts, expected));
}

TEST_CASE("a draft that knows the target is accepted more often by rejection", "[evaluate]") {
    auto& world = World::get();
    SpeculativeOptions o;
    o.sampling = {.temperature = 1, .seed = 1}, o.max_new_tokens = 40;
    const auto match = draw(world.trained, 300, 1, o).all;
    o.verification = Verification::Rejection;
    const auto rejection = draw(world.trained, 300, 1, o).all;
    INFO(match.length() << " tokens a pass by match, " << rejection.length() << " by rejection");
    CHECK(match.length() > 1.1);
    CHECK(rejection.length() > match.length());
}
