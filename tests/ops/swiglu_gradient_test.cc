#include "eyas/device/cpu.hpp"
#include "eyas/ops/swiglu.hpp"
#include "finite_difference.hpp"

using namespace eyas;
using namespace eyas::test;

TEST_CASE("swiglu is silu(gate) * up, and its backward equals finite differences") {
    const std::int64_t rows = 3, width = 17;
    const Cpu cpu;
    auto x = random_values(102, 1), mix = random_values(51, 2);
    std::vector<float> y(51);
    const auto loss = [&] {
        swiglu(cpu, x.data(), y.data(), rows, width);
        return weighted(y, mix);
    };
    loss();
    const double gate = x[0], up = x[17];
    REQUIRE(y[0] == Approx(gate / (1 + std::exp(-gate)) * up).epsilon(1e-5));
    auto dx = x;
    swiglu_backward(cpu, dx.data(), mix.data(), rows, width);
    require_gradient(x, dx, loss);
}
