#include "eyas/ops/frozen_linear.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <concepts>
#include <random>
#include <span>
#include <vector>

#include "eyas/device/cpu.hpp"

using namespace eyas;

namespace {

Tensor random_tensor(const Shape& shape, std::uint32_t seed) {
    Tensor t(DType::F32, shape);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (auto& x : t.as<float>()) x = normal(random);
    return t;
}

template <class P>
double taken(float x) {
    return static_cast<double>(std::same_as<P, Bf16> ? static_cast<float>(BFloat16(x)) : x);
}

std::span<float> numbers(Tensor& t) { return t.as<float>(); }
std::span<const float> numbers(const Tensor& t) { return t.as<float>(); }

struct Sizes {
    std::int64_t out, in;
};

}  // namespace

TEMPLATE_TEST_CASE("a frozen layer is its product, under Bf16 of rounded weights and inputs", "",
                   F32, Bf16) {
    // In a form of the device's own, and for its plain product: odd inputs, outputs of no block.
    const auto [out, in] = GENERATE(Sizes{32, 48}, Sizes{20, 48}, Sizes{32, 7});
    const bool biased = GENERATE(true, false), narrow = GENERATE(true, false),
               add = GENERATE(true, false);
    const std::int64_t rows = 13;
    auto weight = random_tensor({out, in}, 1);
    if (narrow)  // what it takes for that under F32
        for (auto& w : numbers(weight)) w = static_cast<float>(BFloat16(w));
    const auto bias = random_tensor({out}, 2), x = random_tensor({rows, in}, 3),
               before = random_tensor({rows, out}, 4);
    const FrozenLinear<TestType> layer(Cpu(), Tensor::copy_of(weight.view()),
                                       biased ? Tensor::copy_of(bias.view()) : Tensor(), narrow);
    auto y = Tensor::copy_of(before.view());
    layer(Cpu(), numbers(x).data(), numbers(y).data(), rows, add);
    const auto at = [](const Tensor& t, std::int64_t i) {
        return numbers(t)[static_cast<std::size_t>(i)];
    };
    for (std::int64_t i = 0; i < rows * out; ++i) {
        const auto r = i / out, o = i % out;
        const double given = biased ? at(bias, o) : 0.f, there = add ? at(before, i) : 0.f;
        double sum = given + there, magnitude = std::abs(given) + std::abs(there);
        for (std::int64_t j = 0; j < in; ++j) {
            const auto product =
                taken<TestType>(at(x, r * in + j)) * taken<TestType>(at(weight, o * in + j));
            sum += product, magnitude += std::abs(product);
        }
        // Each of in + 2 operations rounds a number of at most the magnitudes' sum to fp32.
        const double u = static_cast<double>(in + 2) * 0x1p-24;
        CHECK(std::abs(at(y, i) - sum) <= u / (1 - u) * magnitude);
    }
}

TEST_CASE("under Bf16 a row has the same bits beside others, where the device has a form for it") {
    const std::int64_t out = 32, in = 48, rows = 30;
    const FrozenLinear<Bf16> layer(Cpu(), random_tensor({out, in}, 1));
    if (!layer.row_invariant()) {
        WARN("SKIPPED: no kernels for weights in bfloat16 on this processor");
        return;
    }
    const auto x = random_tensor({rows, in}, 2);
    std::vector<float> all(static_cast<std::size_t>(rows * out)), one(out);
    layer(Cpu(), numbers(x).data(), all.data(), rows, false);
    for (std::int64_t r = 0; r < rows; ++r) {
        layer(Cpu(), numbers(x).data() + r * in, one.data(), 1, false);
        CHECK(std::equal(one.begin(), one.end(), all.begin() + r * out));
    }
    CHECK(FrozenLinear<Bf16>(Cpu(), random_tensor({32, 16}, 1)).row_invariant());
    CHECK_FALSE(FrozenLinear<Bf16>(Cpu(), random_tensor({20, in}, 1)).row_invariant());
}
