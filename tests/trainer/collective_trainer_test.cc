#include <catch2/catch.hpp>
#include <vector>

#include "eyas/trainer/trainer.hpp"
#include "tests/trainer/fake_model.hpp"
#include "tests/trainer/two_ranks.hpp"

using namespace eyas;
using test::FakeLoader;
using test::FakeModel;
using test::Group;
using test::on_both;
using test::Threads;

namespace {
using Group2Trainer = Trainer<FakeModel<F32>, Collective<Threads>>;

TrainerOptions options() {
    TrainerOptions o;
    o.schedule.base_rate = 0.05;
    o.log_interval = 2;
    return o;
}
}  // namespace

TEST_CASE("two ranks take the step of one rank that accumulates both") {
    FakeModel<F32> a, b, alone;
    Group group(2);
    FakeModel<F32>* models[] = {&a, &b};
    std::vector<LogRecord> logs;
    TrainResult results[2];
    const auto errors = on_both([&](int r) {
        FakeLoader data(4, 1, static_cast<std::uint32_t>(100 + 100 * r));
        Group2Trainer trainer(*models[r], options(), Collective<Threads>(group, r));
        TrainerCallbacks callbacks;
        if (r == 0) callbacks.on_log = [&](const LogRecord& l) { logs.push_back(l); };
        results[r] = trainer.run(data, callbacks);
    });
    CHECK((results[0].step == 4 && results[1].step == 4));
    CHECK(errors == std::vector<std::string>(2));
    FakeLoader d0(4, 1, 100), d1(4, 1, 200);
    AdamW<Cpu> adam(alone.device(), alone.parameters());
    auto s = options().schedule;
    s.total_steps = 4;
    std::vector<double> losses;
    for (int step = 0; step < 4; ++step) {
        alone.zero_gradients();
        losses.push_back(alone.forward_backward(*d0.next(), 0.5f).total_loss);
        losses.push_back(alone.forward_backward(*d1.next(), 0.5f).total_loss);
        adam.step(Schedule(s).rate(step),
                  clip_scale(global_norm(alone.device(), alone.parameters()), 0.5));
    }
    for (std::size_t i = 0; i < 3; ++i) {
        const auto pa = a.parameters()[i].value.as<float>(),
                   pb = b.parameters()[i].value.as<float>(),
                   pc = alone.parameters()[i].value.as<float>();
        CHECK(std::ranges::equal(pa, pb));
        // The order of additions differs: 4 steps of size <= 0.05 with a relative error of the
        // gradient of about 2^-22 each.
        for (std::size_t k = 0; k < pa.size(); ++k)
            CHECK(std::abs(pa[k] - pc[k]) < 4 * 0.05 * 1e-5);
    }
    REQUIRE(logs.size() == 2);
    CHECK(logs[0].loss ==
          Approx((losses[0] + losses[1] + losses[2] + losses[3]) / 4).epsilon(1e-5));
}

TEST_CASE("a stop or a bad batch on one rank ends all ranks at the same step") {
    FakeModel<F32> a, b;
    Group group(2);
    FakeModel<F32>* models[] = {&a, &b};
    SECTION("stop") {
        TrainResult results[2];
        on_both([&](int r) {
            FakeLoader data(10, 1);
            Group2Trainer trainer(*models[r], options(), Collective<Threads>(group, r));
            results[r] = trainer.run(data, {.on_step = [&](const StepRecord& s) {
                                         if (r == 1 && s.step == 3) trainer.request_stop();
                                     }});
        });
        for (const auto& result : results) {
            CHECK(result.step == 3);
            CHECK(result.stopped);
        }
    }
    SECTION("bad batch") {
        const auto errors = on_both([&](int r) {
            FakeLoader data(10, 1);
            if (r == 1) data.poison_epoch = 0, data.poison_batch = 2;
            Group2Trainer trainer(*models[r], options(), Collective<Threads>(group, r));
            trainer.run(data);
        });
        CHECK_THAT(errors[0], Catch::Contains("another rank"));
        CHECK_THAT(errors[1], Catch::Contains("e0b2s0"));
    }
}
