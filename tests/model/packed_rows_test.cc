// Several samples in one row compute what each computes in a row of its own.
#include <catch2/catch.hpp>
#include <concepts>
#include <memory>
#include <vector>

#include "tests/model/packed_batch.hpp"

using namespace eyas;
using namespace eyas::test::packed;
using Catch::Matchers::Contains;

namespace {
struct Case {
    LossType loss;
    std::int64_t ttt_length;
    Activations activations;
};
/// Every loss, at TTT lengths 1, 1 + `between`, … 7, and every way with activations.
std::vector<Case> cases(std::int64_t between) {
    std::vector<Case> all;
    for (const auto loss : {LossType::CrossEntropy, LossType::LkAlpha, LossType::LkLambda})
        for (std::int64_t k = 1; k <= 7; k += between)
            for (const auto a : {Activations::Keep, Activations::Recompute})
                all.push_back({loss, k, a});
    return all;
}
}  // namespace

TEMPLATE_TEST_CASE("packed documents compute what rows of their own compute", "", F32, Bf16) {
    const Documents d;
    // As many rows in all, so that means over them are of the same number.
    const Owned packed(d.packed, 2 * d.longest, true), alone(d.alone, d.longest, false);
    for (const auto& c : cases(1)) {
        INFO("loss " << static_cast<int>(c.loss) << ", TTT length " << c.ttt_length);
        Draft<TestType> draft(c.loss, c.ttt_length, c.activations);
        Draft<F32> exact(c.loss, c.ttt_length, c.activations);
        const auto want = run(draft, {{&alone.batch}});
        const auto in_f32 = run(exact, {{&alone.batch}});
        require_near(want, run(draft, {{&packed.batch}}),
                     std::same_as<TestType, F32> ? nullptr : &in_f32);
    }
}

TEMPLATE_TEST_CASE("a document among others has the loss and gradient that it has alone", "", F32,
                   Bf16) {
    const Documents d;
    const auto tokens = 2 * 2 * d.longest;
    for (const std::size_t which : {0u, 2u}) {
        // Of all documents this one is supervised; alone, it is padded to as many rows.
        std::vector<Document> others;
        others.reserve(d.all.size());
        for (const auto& x : d.all) others.push_back(x.unsupervised());
        auto rows = d.packed;
        for (auto& row : rows)
            for (auto& x : row)
                if (x != &d.all[which]) x = &others[static_cast<std::size_t>(x - d.all.data())];
        const Owned packed(rows, 2 * d.longest, true), alone({{&d.all[which]}}, tokens, false);
        for (const auto& c : cases(3)) {
            INFO("document " << which << ", loss " << static_cast<int>(c.loss) << ", TTT length "
                             << c.ttt_length);
            Draft<TestType> draft(c.loss, c.ttt_length, c.activations);
            Draft<F32> exact(c.loss, c.ttt_length, c.activations);
            const auto want = run(draft, {{&alone.batch}});
            const auto in_f32 = run(exact, {{&alone.batch}});
            require_near(want, run(draft, {{&packed.batch}}),
                         std::same_as<TestType, F32> ? nullptr : &in_f32);
        }
    }
}

TEST_CASE("a batch's cross entropy is that of its documents, weighted by their share of its rows") {
    const Documents d;
    const auto tokens = 2 * d.longest;
    const Owned packed(d.packed, tokens, true);
    Draft<F32> draft(LossType::CrossEntropy, 4, Activations::Keep);
    const auto got = run(draft, {{&packed.batch}});
    std::vector<std::unique_ptr<Owned>> owned;
    std::vector<Work> work;
    for (const auto& x : d.all) {
        owned.push_back(std::make_unique<Owned>(std::vector<Row>{{&x}}, x.rows(), false));
        work.push_back(
            {&owned.back()->batch, static_cast<float>(x.rows()) / static_cast<float>(2 * tokens)});
    }
    auto want = run(draft, work);
    StepMetrics sum = want.metrics[0];
    for (std::size_t k = 0; k < 4; ++k) {
        sum.loss[k] = sum.correct[k] = sum.supervised[k] = 0;
        sum.acceptance_sum[k] = sum.acceptance_rows[k] = 0;
        for (std::size_t i = 0; i < work.size(); ++i) {
            const auto& m = want.metrics[i];
            sum.loss[k] += static_cast<double>(work[i].scale) * m.loss[k];
            sum.correct[k] += m.correct[k], sum.supervised[k] += m.supervised[k];
            sum.acceptance_sum[k] += m.acceptance_sum[k];
            sum.acceptance_rows[k] += m.acceptance_rows[k];
        }
    }
    want.metrics[0] = sum;
    require_near(got, want, nullptr);
}

TEMPLATE_TEST_CASE("what an unsupervised document holds changes no bit of a step", "", F32, Bf16) {
    const Documents d;
    const auto before = d.all[3].unsupervised(), after = Document(23, 77).unsupervised();
    for (const std::size_t place : {0u, 1u, 2u}) {
        Row one{&d.all[1], &d.all[0]}, other = one;
        one.insert(one.begin() + static_cast<long>(place), &before);
        other.insert(other.begin() + static_cast<long>(place), &after);
        const Owned a({one}, 110, true), b({other}, 110, true);
        for (const auto loss : {LossType::CrossEntropy, LossType::LkLambda}) {
            Draft<TestType> draft(loss, 5, Activations::Keep);
            const auto x = run(draft, {{&a.batch}}), y = run(draft, {{&b.batch}});
            CHECK(x.metrics[0].total_loss == y.metrics[0].total_loss);
            CHECK(x.metrics[0].loss == y.metrics[0].loss);
            CHECK(x.metrics[0].acceptance_sum == y.metrics[0].acceptance_sum);
            CHECK(x.gradients == y.gradients);
            CHECK(x.metrics[0].supervised[0] > 0);
        }
    }
}

TEST_CASE("the last row of a document has no teacher and no next token, supervised or not") {
    // What follows a document in its row must not be taken for its next token and state.
    const Documents d;
    for (const std::size_t next : {0u, 1u}) {
        auto supervised = Document(23, 14);
        supervised.loss.as<std::int64_t>()[22] = 1;
        const Owned p({{&supervised, &d.all[next]}}, 140, true),
            a({{&supervised}, {&d.all[next]}}, 70, false);
        Draft<F32> draft(LossType::CrossEntropy, 3, Activations::Keep);
        require_near(run(draft, {{&a.batch}}), run(draft, {{&p.batch}}), nullptr);
    }
}

TEST_CASE("documents that are none are refused") {
    const Documents d;
    Owned packed({{&d.all[1], &d.all[3]}}, 40, true);
    Draft<F32> draft(LossType::CrossEntropy, 2, Activations::Keep);
    const auto starts = packed.document.as<std::int64_t>();
    SECTION("that begin before the row") { starts[0] = -1; }
    SECTION("that begin later") { starts[5] = 6; }
    SECTION("that go on after another") { starts[20] = 0; }
    CHECK_THROWS_WITH(draft.model->evaluate(packed.batch),
                      Contains("document holds") && Contains("batch s"));
}
