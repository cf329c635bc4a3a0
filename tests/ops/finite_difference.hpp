#pragma once
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

namespace eyas::test {

inline std::vector<float> random_values(std::size_t n, unsigned seed, float scale = 1.f) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.f, scale);
    std::vector<float> v(n);
    for (float& x : v) x = normal(random);
    return v;
}

/// A scalar loss that weighs every output differently: sum of y * weight, in double.
inline double weighted(const std::vector<float>& y, const std::vector<float>& weight) {
    double s = 0;
    for (std::size_t i = 0; i < y.size(); ++i) s += static_cast<double>(y[i]) * weight[i];
    return s;
}

/// Compares `gradient` with central differences of `loss` in every entry of `x`.
/// With step h the difference is off by h^2/6 |f'''| (about 2e-5 for h = 1e-2 and f''' of order 1)
/// plus rounding: outputs carry relative 2^-24 each, n of them add up to about sqrt(n) 6e-8 |y| /
/// h, below 1e-4 for the sizes here. The bound of 2e-3 relative to the largest gradient leaves room
/// for f''' of order 10 and still fails for a missing or doubled term.
inline void require_gradient(std::vector<float>& x, const std::vector<float>& gradient,
                             const std::function<double()>& loss) {
    constexpr float h = 1e-2f;
    double largest = 1e-3;
    for (float g : gradient) largest = std::max(largest, std::abs(static_cast<double>(g)));
    REQUIRE(x.size() == gradient.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
        const float keep = x[i];
        x[i] = keep + h;
        const double up = loss();
        x[i] = keep - h;
        const double down = loss();
        x[i] = keep;
        const double numeric = (up - down) / (2.0 * static_cast<double>(h));
        INFO("entry " << i << ": analytic " << gradient[i] << ", numeric " << numeric
                      << ", largest " << largest);
        REQUIRE(std::abs(numeric - static_cast<double>(gradient[i])) <= 2e-3 * largest);
    }
}

}  // namespace eyas::test
