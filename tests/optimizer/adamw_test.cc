#include "eyas/optimizer/adamw.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "eyas/device/cpu.hpp"
#include "eyas/optimizer/clip.hpp"
#include "tests/trainer/fake_model.hpp"

using namespace eyas;

namespace {
struct Three {
    explicit Three(DType dtype = DType::F32) : value(Tensor::zeros(dtype, Shape{3})) {
        const Tensor start = [] {
            Tensor t(DType::F32, Shape{3});
            const float w0[] = {0.5f, -1.25f, 3.f};
            std::copy(w0, w0 + 3, t.as<float>().begin());
            return t;
        }();
        convert_into(start, value.mutable_view());
        grad = Tensor::zeros(DType::F32, Shape{3});
        parameter = {"w", value.mutable_view(), grad.mutable_view()};
    }
    Tensor value, grad;
    Parameter parameter;
};

// Gradient of step t, element i: multiples of 1/8, so that they are exact.
void set_gradient(Three& p, int t) {
    for (int i = 0; i < 3; ++i)
        p.grad.as<float>()[static_cast<std::size_t>(i)] =
            static_cast<float>((7 * t + 3 * i) % 11 - 5) / 8.f;
}

void check_close(std::span<const float> have, const std::vector<float>& want) {
    // Each of the 6 steps does about 8 roundings of relative size 2^-24 per element, on values that
    // keep their magnitude; a fused multiply-add on one side moves each by half an ulp: 6*8*2^-24.
    for (std::size_t i = 0; i < want.size(); ++i)
        CHECK(have[i] == Approx(want[i]).epsilon(6 * 8 * std::ldexp(1.0, -24)).margin(0));
}
}  // namespace

// Values of torch.optim.AdamW (2.15, CPU, single tensor) with lr 0.01/(t+1) over six steps.
TEST_CASE("AdamW follows torch") {
    const double decay = GENERATE(0.0, 0.1);
    Three p;
    AdamW<Cpu> adam(Cpu{}, std::span(&p.parameter, 1), {.weight_decay = decay});
    for (int t = 0; t < 6; ++t) {
        set_gradient(p, t);
        adam.step(0.01 / (t + 1));
    }
    if (decay == 0.0)
        check_close(p.value.as<float>(),
                    {0x1.069c080000000p-1f, -0x1.3eb5a20000000p+0f, 0x1.7ee3900000000p+1f});
    else
        check_close(p.value.as<float>(),
                    {0x1.05f9660000000p-1f, -0x1.3deddc0000000p+0f, 0x1.7df35e0000000p+1f});
    const auto state = adam.state();
    REQUIRE(state.size() == 3);
    CHECK(state[0].name == "master.w");
    CHECK(state[1].name == "exp_avg.w");
    CHECK(state[2].name == "exp_avg_sq.w");
    // exp_avg cancels to a hundredth of its terms: absolute bound from terms of size 2^-3.
    const std::vector<float> m{-0x1.d652ba0000000p-7f, 0x1.9972cc0000000p-5f,
                               0x1.80485e0000000p-7f};
    for (std::size_t i = 0; i < 3; ++i)
        CHECK(std::abs(state[1].buffer.as<float>()[i] - m[i]) < 6 * std::ldexp(1.f, -26));
    check_close(state[2].buffer.as<float>(),
                {0x1.15b1960000000p-10f, 0x1.c1468c0000000p-11f, 0x1.a0eecc0000000p-11f});
    CHECK(adam.step_count() == 6);
}

TEST_CASE("a bfloat16 model follows its float32 masters") {
    Three p(DType::BF16), q;
    AdamW<Cpu> half(Cpu{}, std::span(&p.parameter, 1)), full(Cpu{}, std::span(&q.parameter, 1));
    for (int t = 0; t < 6; ++t) {
        set_gradient(p, t);
        set_gradient(q, t);
        half.step(1e-4);
        full.step(1e-4);
    }
    // The starting values are exact in bfloat16, so both runs have the same masters.
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(half.state()[0].buffer.as<float>()[i] == q.value.as<float>()[i]);
        CHECK(p.value.as<BFloat16>()[i] == BFloat16(q.value.as<float>()[i]));
    }
    CHECK(q.value.as<float>()[1] != -1.25f);  // steps far below a bfloat16 ulp are not lost
}

TEST_CASE("the masters of a float32 model are its values, those of a bfloat16 model are not") {
    Three p(DType::BF16), q;
    AdamW<Cpu> half(Cpu{}, std::span(&p.parameter, 1)), full(Cpu{}, std::span(&q.parameter, 1));
    CHECK(full.state()[0].buffer.data == q.parameter.value.data);
    CHECK(half.state()[0].buffer.data != p.parameter.value.data);
    // Weights that are loaded later are its masters, too; others when they are told.
    q.value.as<float>()[0] = 7.f;
    p.value.as<BFloat16>()[0] = BFloat16(7.f);
    CHECK(full.state()[0].buffer.as<float>()[0] == 7.f);
    CHECK(half.state()[0].buffer.as<float>()[0] != 7.f);
    half.reset_masters();
    CHECK(half.state()[0].buffer.as<float>()[0] == 7.f);
}

TEST_CASE("a zero gradient still decays moments and moves weights") {
    Three p;
    AdamW<Cpu> adam(Cpu{}, std::span(&p.parameter, 1));
    set_gradient(p, 0);
    adam.step(0.01);
    const float before = p.value.as<float>()[0], m = adam.state()[1].buffer.as<float>()[0];
    std::ranges::fill(p.grad.as<float>(), 0.f);
    adam.step(0.01);
    CHECK(p.value.as<float>()[0] != before);
    CHECK(adam.state()[1].buffer.as<float>()[0] == Approx(0.9 * m).epsilon(1e-6));
}

TEST_CASE("a parameter without gradient is left alone, weight decay or not") {
    test::FakeModel<F32> model;
    AdamW<Cpu> adam(model.device(), model.parameters(), {.weight_decay = 0.5});
    const Tensor before = Tensor::copy_of(model.parameters()[1].value);
    const float trained = model.parameters()[0].value.as<float>()[0];
    adam.step(0.1);
    CHECK(std::ranges::equal(before.view().bytes(), model.parameters()[1].value.bytes()));
    CHECK(model.parameters()[0].value.as<float>()[0] != trained);
    std::vector<std::string> names;
    for (const auto& b : adam.state()) names.push_back(b.name);
    CHECK(names == std::vector<std::string>{"master.fc.weight", "exp_avg.fc.weight",
                                            "exp_avg_sq.fc.weight", "master.norm.weight",
                                            "master.lm_head.weight", "exp_avg.lm_head.weight",
                                            "exp_avg_sq.lm_head.weight"});
}

TEST_CASE("global norm and clip scale") {
    test::FakeModel<F32> model;
    const auto parameters = model.parameters();
    parameters[0].grad.as<float>()[0] = 3.f;
    parameters[1].grad.as<float>()[0] = 100.f;  // receives none: not counted
    parameters[2].grad.as<float>()[5] = -4.f;
    CHECK(global_norm(Cpu{}, parameters) == 5.0);
    CHECK(clip_scale(5.0, 0.5) == static_cast<float>(0.5 / (5.0 + 1e-6)));
    CHECK(clip_scale(0.1, 0.5) == 1.f);
    CHECK(clip_scale(5.0, 0) == 1.f);
    CHECK(clip_scale(0.5, 0.5) < 1.f);  // the 1e-6 counts, as in torch
    parameters[2].grad.as<float>()[5] = std::nanf("");
    CHECK(std::isnan(global_norm(Cpu{}, parameters)));
}
