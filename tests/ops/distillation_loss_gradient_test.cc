#include "eyas/ops/distillation_loss.hpp"
#include "finite_difference.hpp"

using namespace eyas;
using namespace eyas::test;

namespace {
constexpr std::size_t vocabulary = 40, draft = 24;

struct Teacher {
    std::vector<float> p;
    float share;
    Teacher() {
        auto z = random_values(vocabulary, 7, 2.f);
        std::vector<std::int64_t> ids(vocabulary);
        for (std::size_t i = 0; i < vocabulary; ++i) ids[i] = static_cast<std::int64_t>(i);
        TeacherRow row;
        visit(row, z.data(), ids.data(), vocabulary);
        p.assign(z.begin(), z.begin() + draft);
        share = teacher_probabilities(p.data(), draft, row.log_sum());
    }
};
}  // namespace

TEST_CASE("cross-entropy gradient equals finite differences") {
    const Teacher t;
    auto l = random_values(draft, 8);
    const auto loss = [&] {
        auto q = l;
        return static_cast<double>(draft_row(q.data(), t.p.data(), t.share, draft).loss);
    };
    auto g = l;
    const auto row = draft_row(g.data(), t.p.data(), t.share, draft);
    draft_row_backward(g.data(), t.p.data(), t.share, row, {1.f, 0.f}, draft);
    require_gradient(l, g, loss);
}

TEST_CASE("acceptance gradient equals finite differences, away from ties") {
    const Teacher t;
    auto l = random_values(draft, 9);
    const auto acceptance = [&] {
        auto q = l;
        return static_cast<double>(draft_row(q.data(), t.p.data(), t.share, draft).acceptance);
    };
    auto g = l;
    const auto row = draft_row(g.data(), t.p.data(), t.share, draft);
    // A step of 1e-2 must not carry any token across q = share * p, where the function has a kink.
    for (std::size_t j = 0; j < draft; ++j)
        REQUIRE(std::abs(std::log(g[j] / (t.share * t.p[j]))) > 0.012);
    draft_row_backward(g.data(), t.p.data(), t.share, row, {0.f, 1.f}, draft);
    require_gradient(l, g, acceptance);
}

TEST_CASE(
    "teacher row: tiles in any order give the same arg-max and log-sum, ties keep the lowest id") {
    std::vector<float> z{0.5f, 3.f, -1.f, 3.f, 2.f};
    const std::vector<std::int64_t> ids{1, 4, 6, 0, 2};  // two tiles: ids 1 4 6 and 0 2
    TeacherRow forward, backward;
    visit(forward, z.data(), ids.data(), 3);
    visit(forward, z.data() + 3, ids.data() + 3, 2);
    visit(backward, z.data() + 3, ids.data() + 3, 2);
    visit(backward, z.data(), ids.data(), 3);
    double sum = 0;
    for (float v : z) sum += std::exp(static_cast<double>(v));
    for (const auto* r : {&forward, &backward}) {
        REQUIRE(r->token == 0);
        REQUIRE(r->log_sum() == Approx(std::log(sum)).epsilon(1e-6));
    }
}

TEST_CASE("exp_fast is within 2 units of expf where it matters") {
    double worst = 0;
    for (float x = -87.f; x < 88.f; x += 0.00137f)
        worst = std::max(
            worst,
            std::abs(static_cast<double>(exp_fast(x)) / std::exp(static_cast<double>(x)) - 1));
    REQUIRE(worst < 2 * 0x1.0p-23);
    REQUIRE(exp_fast(-INFINITY) == 0.f);
    REQUIRE(exp_fast(0.f) == 1.f);
}
