#include "eyas/capture/sampling.hpp"

#include <catch2/catch.hpp>
#include <limits>

#include "eyas/core/random.hpp"

using namespace eyas;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float no_number = std::numeric_limits<float>::quiet_NaN();

TokenDistribution distribution(const std::vector<float>& logits, const SamplingOptions& options) {
    TokenDistribution d;
    d.assign(logits, options);
    return d;
}

/// Logits of these probabilities.
std::vector<float> logits_of(const std::vector<double>& p) {
    std::vector<float> out;
    for (double x : p) out.push_back(static_cast<float>(std::log(x)));
    return out;
}

std::vector<std::int64_t> left(const TokenDistribution& d) {
    std::vector<std::int64_t> out;
    for (std::size_t i = 0; i < d.probabilities().size(); ++i)
        if (d.probabilities()[i] > 0) out.push_back(static_cast<std::int64_t>(i));
    return out;
}

}  // namespace

TEST_CASE("greedy takes the most probable token, the lowest of equals", "[sampling]") {
    CHECK(most_probable(std::vector<float>{1, 3, 3, 2}) == 1);
    CHECK(most_probable(std::vector<float>{no_number, -1, no_number, -0.5f}) == 3);
    const auto d = distribution({1, 3, 3, 2}, {});
    CHECK(left(d) == std::vector<std::int64_t>{1});
    CHECK(d.draw(0) == 1);
    CHECK(d.draw(0.999) == 1);
}

TEST_CASE("temperature divides logits", "[sampling]") {
    const std::vector<float> logits{0.5f, -1, 2, -infinity, no_number};
    const auto t = GENERATE(0.25, 1.0, 3.0);
    const auto d = distribution(logits, {.temperature = t});
    const double e[] = {std::exp(0.5 / t), std::exp(-1 / t), std::exp(2 / t)};
    const double sum = e[0] + e[1] + e[2];
    // Three operations in double, each within 1.2e-16; exp of up to 12 within 12 times as much.
    for (std::int64_t i = 0; i < 3; ++i) CHECK(d[i] == Approx(e[i] / sum).epsilon(1e-14));
    CHECK(d[3] == 0);
    CHECK(d[4] == 0);
}

TEST_CASE("top-p keeps the fewest most probable tokens that reach it", "[sampling]") {
    // Powers of two: logits differ by ln 2 and sums have no rounding worth a tie.
    const auto logits = logits_of({0.125, 0.5, 0.0625, 0.25, 0.0625});
    const auto kept = [&](double p) { return left(distribution(logits, {1, p, 0})); };
    using Ids = std::vector<std::int64_t>;
    CHECK(kept(0.01) == Ids{1});
    CHECK(kept(0.49) == Ids{1});
    CHECK(kept(0.51) == Ids{1, 3});
    CHECK(kept(0.74) == Ids{1, 3});
    CHECK(kept(0.76) == Ids{0, 1, 3});
    CHECK(kept(0.88) == Ids{0, 1, 2, 3});  // of the equal ones the lower id
    CHECK(kept(0.94) == Ids{0, 1, 2, 3, 4});
    CHECK(kept(1) == Ids{0, 1, 2, 3, 4});
    const auto d = distribution(logits, {1, 0.76, 0});
    CHECK(d[1] == Approx(4.0 / 7));
    CHECK(d[3] == Approx(2.0 / 7));
    CHECK(d[0] == Approx(1.0 / 7));
}

TEST_CASE("top-p over many tokens is that of a whole sort", "[sampling]") {
    std::vector<float> logits;
    for (std::uint64_t i = 0; i < 3000; ++i)
        logits.push_back(static_cast<float>(4 * keyed_uniform(1, i, 0)));
    const auto all = distribution(logits, {1, 1, 0});
    std::vector<std::int64_t> order(logits.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
    std::ranges::sort(order, [&](auto a, auto b) { return all[a] > all[b]; });
    for (const double p : {0.02, 0.3, 0.9, 0.999}) {
        double sum = 0;
        std::size_t kept = 0;
        while (sum < p) sum += all[order[kept++]];
        std::vector<std::int64_t> want(order.begin(), order.begin() + static_cast<long>(kept));
        std::ranges::sort(want);
        CHECK(left(distribution(logits, {1, p, 0})) == want);
    }
}

TEST_CASE("draws follow the distribution, whatever key varies", "[sampling]") {
    const std::vector<double> p{0.05, 0.3, 0.2, 0.15, 0.1, 0.08, 0.07, 0.05};
    const auto d = distribution(logits_of(p), {.temperature = 1});
    const int key = GENERATE(0, 1, 2, 3);
    constexpr int draws = 200'000;
    std::vector<double> count(p.size());
    for (std::uint64_t i = 0; i < draws; ++i) {
        const auto k = [&](int place) { return place == key ? i : 17; };
        ++count[static_cast<std::size_t>(d.draw(keyed_uniform(k(0), k(1), k(2), k(3))))];
    }
    double chi_square = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
        const double want = draws * p[i];
        chi_square += (count[i] - want) * (count[i] - want) / want;
    }
    // Seven degrees of freedom: more than 24.3 has probability 1e-3, in four runs 4e-3. The keys
    // are fixed, so this fails always or never.
    CHECK(chi_square < 24.3);
    CHECK(chi_square > 0.5);  // less has probability 6e-4: draws would not be random
}

TEST_CASE("draws of neighbouring positions and sequences do not hang together", "[sampling]") {
    // 16 cells of (this draw, the next one), along positions and along sequences.
    const bool positions = GENERATE(true, false);
    constexpr int draws = 100'000;
    std::vector<double> count(16);
    for (std::uint64_t i = 0; i < draws; ++i) {
        const auto at = [&](std::uint64_t j) {
            const double u = positions ? keyed_uniform(3, 5, j) : keyed_uniform(3, j, 5);
            return static_cast<std::size_t>(4 * u);
        };
        ++count[4 * at(2 * i) + at(2 * i + 1)];
    }
    double chi_square = 0;
    for (double c : count) chi_square += (c - draws / 16.) * (c - draws / 16.) / (draws / 16.);
    CHECK(chi_square < 37.7);  // 15 degrees of freedom, probability 1e-3
}

TEST_CASE("a number of [0, 1) falls into the token of its place", "[sampling]") {
    const auto d = distribution(logits_of({0.25, 0.5, 0.25}), {.temperature = 1});
    CHECK(d.draw(0) == 0);
    CHECK(d.draw(0.249) == 0);
    CHECK(d.draw(0.251) == 1);
    CHECK(d.draw(0.749) == 1);
    CHECK(d.draw(0.751) == 2);
    CHECK(d.draw(std::nextafter(1.0, 0.0)) == 2);
    const auto cut = distribution(logits_of({0.4, 0.35, 0.25}), {1, 0.7, 0});
    CHECK(cut.draw(std::nextafter(1.0, 0.0)) == 1);  // never one without probability
}

TEST_CASE("what one distribution leaves of another", "[sampling]") {
    auto p = distribution(logits_of({0.5, 0.3, 0.2}), {.temperature = 1});
    const auto q = distribution(logits_of({0.2, 0.5, 0.3}), {.temperature = 1});
    auto rest = p;
    rest.subtract(q);
    CHECK(rest[0] == Approx(1));
    CHECK(rest[1] == 0);
    CHECK(rest[2] == 0);
    rest = p;
    rest.subtract(p);  // nothing remains: unchanged
    CHECK(rest[0] == p[0]);
}

TEST_CASE("what cannot be sampled is refused", "[sampling]") {
    CHECK_THROWS_AS((SamplingOptions{.temperature = -0.1}.check()), ContractError);
    CHECK_THROWS_AS((SamplingOptions{.temperature = 101}.check()), ContractError);
    CHECK_THROWS_AS((SamplingOptions{.temperature = std::nan("")}.check()), ContractError);
    CHECK_THROWS_AS((SamplingOptions{1, 0, 0}.check()), ContractError);
    CHECK_THROWS_AS((SamplingOptions{1, 1.1, 0}.check()), ContractError);
    CHECK_NOTHROW((SamplingOptions{1, 1, 0}.check()));
    for (const auto& options : {SamplingOptions{}, SamplingOptions{1, 1, 0}}) {
        CHECK_THROWS_AS(distribution({no_number, no_number}, options), DataError);
        CHECK_THROWS_AS(distribution({-infinity, -infinity}, options), DataError);
    }
}
