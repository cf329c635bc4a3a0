#include "eyas/evaluate/evaluate.hpp"

#include <catch2/catch.hpp>

#include "tests/trainer/fake_model.hpp"

using namespace eyas;
using test::FakeLoader;
using test::FakeModel;

namespace {
// Says what it was told, one batch after another; batches of one row more each.
struct Script {
    using Position = FakeLoader::Position;
    const Batch* next() {
        if (at == 2) return nullptr;
        ++at;
        ids = Tensor::zeros(DType::I64, Shape{1, at});
        for (auto& x : ids.as<std::int64_t>()) x = 1;
        batch = {ids, ids, ids, {}, {}, std::nullopt, {"s"}};
        return &batch;
    }
    bool interrupted() const { return false; }
    void seek(Position) {}
    void acknowledge(Position, std::int64_t) {}
    Position position() const { return {0, at}; }
    std::int64_t batches_per_epoch() const { return 2; }
    double stall_seconds() const { return 0; }
    std::int64_t at = 0;
    Tensor ids;
    Batch batch;
};

struct Told : FakeModel<F32> {
    StepMetrics evaluate(const Batch& b) {
        const auto n = static_cast<double>(b.tokens());
        StepMetrics m;
        m.loss = {n, 2 * n};
        m.correct = {1, 0};
        m.supervised = {n, n};
        m.acceptance_sum = {n == 1 ? 1.0 : 0.5, 0.5};
        m.acceptance_rows = {n, n == 1 ? 0 : 1.0};
        m.total_loss = 10 * n;
        return m;
    }
};
}  // namespace

TEST_CASE("figures are ratios of sums, not means of ratios") {
    Told model;
    Script loader;
    std::vector<std::int64_t> seen;
    const auto e =
        evaluate(model, loader, {.on_progress = [&](std::int64_t n) { seen.push_back(n); }});
    CHECK(seen == std::vector<std::int64_t>{1, 2});
    CHECK(e.samples == 2);
    CHECK(e.tokens == 3);
    CHECK(e.supervised_tokens() == 3);
    CHECK(e.accuracy(0) == 2.0 / 3);  // not (1/1 + 1/2) / 2
    CHECK(e.accuracy(1) == 0);
    CHECK(e.acceptance_rate(0) == 0.5);        // 1.5 / 3
    CHECK(e.acceptance_rate(1) == 1.0);        // (0.5 + 0.5) / (0 + 1)
    CHECK(e.mean_loss(0) == (1.0 + 4.0) / 3);  // weighted by rows
    CHECK(e.mean_loss() == (10.0 + 40.0) / 3);
    CHECK(e.expected_tokens_per_pass() == 1 + 0.5 + 0.5 * 1.0);
    CHECK_THROWS_AS(evaluate(model, loader), ContractError);  // nothing is left in the loader
}

TEST_CASE("evaluation changes nothing and can be cut short") {
    FakeModel<F32> m;
    FakeLoader data(10, 1);
    const Tensor before = Tensor::copy_of(m.parameters()[0].value);
    const auto e = evaluate(m, data, {.max_batches = 3});
    CHECK(e.batches == 3);
    CHECK(e.samples == 6);
    CHECK(data.position().batch == 3);
    CHECK(std::ranges::equal(before.view().bytes(), m.parameters()[0].value.bytes()));
    for (auto g : m.parameters()[0].grad.as<float>()) CHECK(g == 0);
}

TEST_CASE("totals survive JSON and refuse what is no total") {
    FakeModel<F32> m;
    FakeLoader data(3, 1);
    const auto e = evaluate(m, data);
    const auto back = MetricTotals::from_json(Json::parse(e.to_json().dump()), "here");
    CHECK(back.packed() == e.packed());
    CHECK(back.ttt_length() == 2);
    CHECK_THROWS_AS(MetricTotals::from_json({{"ttt_length", 3}, {"sums", {1.0, 2.0}}}, "here"),
                    DataError);
    CHECK_THROWS_AS(
        MetricTotals::from_json({{"ttt_length", 1u << 30}, {"sums", e.packed()}}, "here"),
        DataError);
}
