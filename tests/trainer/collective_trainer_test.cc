// What ranks compute: the steps of one process.
#include "tests/trainer/collective_training.hpp"

using namespace eyas;
using namespace eyas::test;

TEST_CASE("two ranks take the step of one rank that accumulates both") {
    FakeModel<F32> a, b, alone;
    ThreadGroup group(2);
    FakeModel<F32>* models[] = {&a, &b};
    std::vector<LogRecord> logs;
    TrainResult results[2];
    const auto errors = on_both([&](int r) {
        FakeLoader data(4, 1, static_cast<std::uint32_t>(100 + 100 * r));
        GroupTrainer trainer(*models[r], options(), ThreadMember(group, r));
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

TEST_CASE("ranks have the same bits, and those of one process but for rounding") {
    const auto alone = train(1, {});
    const auto begun = weights(*std::make_unique<FakeModel<F32>>());
    const double moved = furthest(alone.weights[0], begun);
    CHECK(moved > 1000 * rounding);
    for (const int world : {1, 2, 4}) {
        // Buckets are how sums are cut, not what they are.
        for (const std::int64_t bucket : {1, 64, 128, 1 << 20}) {
            const auto t = train(world, {}, 0, bucket), again = train(world, {}, 0, bucket);
            for (const auto& w : t.weights) CHECK(w == t.weights[0]);
            CHECK(t.weights == again.weights);
            CHECK(furthest(t.weights[0], alone.weights[0]) <= (world == 1 ? 0 : rounding));
        }
        const auto half = train<Bf16>(world, {});
        for (const auto& w : half.weights) CHECK(w == half.weights[0]);
    }
}
