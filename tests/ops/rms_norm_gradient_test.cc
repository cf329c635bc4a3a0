#include "eyas/device/cpu.hpp"
#include "eyas/ops/rms_norm.hpp"
#include "finite_difference.hpp"

using namespace eyas;
using namespace eyas::test;

TEST_CASE("rms_norm backward equals finite differences and adds to what dx and d_weight hold") {
    const std::int64_t rows = 5, width = 70;  // more than one strip of columns
    const Cpu cpu;
    auto x = random_values(350, 1), weight = random_values(70, 2), mix = random_values(350, 3);
    std::vector<float> y(350), rms(5);
    const auto loss = [&] {
        rms_norm(cpu, x.data(), width, weight.data(), y.data(), width, rms.data(), rows, width,
                 1e-5f);
        return weighted(y, mix);
    };
    loss();
    std::vector<float> dx(350, 2.f), dw(70, 3.f);
    rms_norm_backward(cpu, x.data(), width, weight.data(), mix.data(), width, dx.data(), width,
                      rms.data(), dw.data(), rows, width);
    for (float& v : dx) v -= 2.f;
    for (float& v : dw) v -= 3.f;
    require_gradient(x, dx, loss);
    require_gradient(weight, dw, loss);
}

TEST_CASE("rms_norm divides by the root mean square") {
    const Cpu cpu;
    std::vector<float> x{3.f, 4.f}, w{1.f, 2.f}, y(2), rms(1);
    rms_norm(cpu, x.data(), 2, w.data(), y.data(), 2, rms.data(), 1, 2, 0.f);
    const float root = std::sqrt(12.5f);
    REQUIRE(y[0] == Approx(3.f / root));
    REQUIRE(y[1] == Approx(8.f / root));
}
