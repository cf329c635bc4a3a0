#include "eyas/device/cpu.hpp"
#include "eyas/ops/linear.hpp"
#include "finite_difference.hpp"

using namespace eyas;
using namespace eyas::test;

TEST_CASE("linear backward equals finite differences, with strides and accumulation") {
    const std::int64_t rows = 4, in = 6, out = 5, x_stride = 8, y_stride = 7;
    const Cpu cpu;
    RoundingScratch scratch;
    auto x = random_values(32, 1), w = random_values(30, 2), mix = random_values(28, 3);
    for (std::size_t r = 0; r < 4; ++r) mix[r * 7 + 5] = mix[r * 7 + 6] = 0.f;  // padding of y
    std::vector<float> y(28, 1.f);
    const auto loss = [&] {
        std::fill(y.begin(), y.end(), 1.f);
        linear(cpu, x.data(), x_stride, w.data(), y.data(), y_stride, rows, in, out, true, scratch);
        return weighted(y, mix);
    };
    std::vector<float> dx(32, 0.f), dw(30, 1.f);
    linear_backward_input(cpu, mix.data(), y_stride, w.data(), dx.data(), x_stride, rows, in, out,
                          false, scratch);
    linear_backward_weight(cpu, mix.data(), y_stride, x.data(), x_stride, dw.data(), rows, in, out);
    for (float& v : dw) v -= 1.f;
    require_gradient(x, dx, loss);
    require_gradient(w, dw, loss);
}

TEST_CASE("linear in bfloat16 rounds the fp32 product once, then adds the residual") {
    const Cpu cpu;
    Arena arena;
    RoundingScratch scratch;
    arena.build([&](Arena& of) { of.give(scratch, 3 * 2, "scratch"); });
    const auto xf = random_values(12, 4), wf = random_values(8, 5);
    std::vector<BFloat16> x(xf.begin(), xf.end()), w(wf.begin(), wf.end()), y(6, BFloat16(1.5f));
    linear(cpu, x.data(), 4, w.data(), y.data(), 2, 3, 4, 2, true, scratch);
    for (std::size_t r = 0; r < 3; ++r)
        for (std::size_t o = 0; o < 2; ++o) {
            float s = 0;
            for (std::size_t j = 0; j < 4; ++j)
                s += static_cast<float>(x[r * 4 + j]) * static_cast<float>(w[o * 4 + j]);
            // fp32 sums in another order may round the other way at a bfloat16 boundary: one unit
            // of 2^-7.
            const float want = 1.5f + static_cast<float>(BFloat16(s));
            REQUIRE(static_cast<float>(y[r * 2 + o]) == Approx(want).epsilon(0x1.0p-7));
        }
}
