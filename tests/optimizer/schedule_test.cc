#include "eyas/optimizer/schedule.hpp"

#include <catch2/catch.hpp>
#include <vector>

using namespace eyas;

namespace {
// The rate is a handful of double operations; 1e-15 is several ulps of the largest value used here.
void check_rates(const ScheduleOptions& o, const std::vector<double>& expected) {
    const Schedule s(o);
    for (std::size_t k = 0; k < expected.size(); ++k) {
        INFO("step " << k);
        CHECK(s.rate(static_cast<std::int64_t>(k)) == Approx(expected[k]).epsilon(0).margin(1e-15));
    }
}
}  // namespace

TEST_CASE("warm-up rises to the base rate, cosine falls from it") {
    // S = 8, W = int(0.25 * 8) = 2; after it 1/2 (1 + cos(pi * n / 6)).
    check_rates(
        {.kind = ScheduleKind::Cosine, .base_rate = 1.0, .total_steps = 8, .warmup_ratio = 0.25},
        {0.5, 1.0, 1.0, 0.9330127018922193, 0.75, 0.5, 0.25, 0.0669872981077807, 0.0, 0.0});
}

TEST_CASE("the warm-up length is cut, not rounded") {
    const Schedule s({.base_rate = 1.0, .total_steps = 19, .warmup_ratio = 0.15});
    CHECK(s.warmup_steps() == 2);  // 2.85
    CHECK(s.rate(0) == 0.5);
    const Schedule none({.base_rate = 1.0, .total_steps = 19, .warmup_ratio = 0.0});
    CHECK(none.rate(0) == 1.0);
}

TEST_CASE("constant, linear and wsd") {
    const ScheduleOptions o{
        .base_rate = 2.0, .total_steps = 10, .warmup_ratio = 0.2, .decay_ratio = 0.4};
    auto constant = o, linear = o, wsd = o;
    constant.kind = ScheduleKind::Constant;
    linear.kind = ScheduleKind::Linear;
    wsd.kind = ScheduleKind::Wsd;
    check_rates(constant, {1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2});
    check_rates(linear, {1, 2, 2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25, 0, 0});
    check_rates(wsd, {1, 2, 2, 2, 2, 2, 2, 1.5, 1, 0.5, 0, 0});
}

TEST_CASE("impossible schedules are refused by name") {
    CHECK_THROWS_WITH(Schedule({.total_steps = 0}), Catch::Contains("total_steps"));
    CHECK_THROWS_WITH(Schedule({.total_steps = 5, .warmup_ratio = 1.0}),
                      Catch::Contains("warm-up"));
    CHECK_THROWS_WITH(Schedule({.total_steps = 5, .warmup_ratio = -1}),
                      Catch::Contains("warmup_ratio"));
    CHECK_THROWS_WITH(Schedule({.kind = ScheduleKind::Wsd,
                                .total_steps = 10,
                                .warmup_ratio = 0.6,
                                .decay_ratio = 0.6}),
                      Catch::Contains("overlap"));
    CHECK_THROWS_AS(Schedule({.base_rate = -1, .total_steps = 5}), ContractError);
    CHECK_THROWS_AS(schedule_from_name("cosin"), ContractError);
    for (auto kind :
         {ScheduleKind::Cosine, ScheduleKind::Constant, ScheduleKind::Linear, ScheduleKind::Wsd})
        CHECK(schedule_from_name(name_of(kind)) == kind);
}
