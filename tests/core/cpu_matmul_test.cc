#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "eyas/device/cpu.hpp"

using namespace eyas;

namespace {
template <class T>
std::vector<T> random_matrix(std::int64_t rows, std::int64_t stride, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(-1.f, 1.f);
    std::vector<T> v;
    for (std::int64_t i = 0; i < rows * stride; ++i) v.push_back(T(uniform(random)));
    return v;
}

struct Case {
    Op op_a, op_b;
    std::int64_t m, n, k, pad_a, pad_b, pad_c;
    float alpha, beta;
};

/// op(X)[r, c] of a stored matrix.
template <class T>
double element(Op op, const std::vector<T>& x, std::int64_t ld, std::int64_t r, std::int64_t c) {
    return static_cast<float>(
        x[static_cast<std::size_t>(op == Op::None ? r * ld + c : c * ld + r)]);
}

/// Compares with sums in double. Bound: a sum of k products in fp32, in any order and with or
/// without fused multiply-add, is off by at most k u sum |a b| to first order, u = 2^-24; scaling
/// by alpha and adding beta C are three more roundings. Doubled for the higher orders.
template <class T>
int wrong_elements(const Case& x) {
    const auto rows_a = x.op_a == Op::None ? x.m : x.k, rows_b = x.op_b == Op::None ? x.k : x.n;
    const auto lda = (x.op_a == Op::None ? x.k : x.m) + x.pad_a,
               ldb = (x.op_b == Op::None ? x.n : x.k) + x.pad_b, ldc = x.n + x.pad_c;
    const auto a = random_matrix<T>(rows_a, lda, 1), b = random_matrix<T>(rows_b, ldb, 2);
    const auto before = random_matrix<float>(x.m, ldc, 3);
    auto c = before;
    Cpu().matmul(Matmul<T, float>{x.op_a, x.op_b, x.m, x.n, x.k, a.data(), lda, b.data(), ldb,
                                  c.data(), ldc, x.alpha, x.beta});
    int wrong = 0;
    for (std::int64_t i = 0; i < x.m; ++i)
        for (std::int64_t j = 0; j < ldc; ++j) {
            const auto at = static_cast<std::size_t>(i * ldc + j);
            if (j >= x.n) {  // between the rows of C nothing may change
                wrong += c[at] != before[at];
                continue;
            }
            double product = 0, size = 0;
            for (std::int64_t l = 0; l < x.k; ++l) {
                const double p = element(x.op_a, a, lda, i, l) * element(x.op_b, b, ldb, l, j);
                product += p, size += std::abs(p);
            }
            const double want = x.alpha * product + x.beta * before[at];
            const double bound = 2 * 0x1p-24 * static_cast<double>(x.k + 3) *
                                 (std::abs(x.alpha) * size + std::abs(x.beta * before[at]));
            wrong += !(std::abs(c[at] - want) <= bound);
        }
    return wrong;
}

template <class T>
void check_all() {
    const std::int64_t sizes[][3] = {{1, 1, 1}, {3, 5, 7}, {1, 33, 16}, {17, 1, 64}, {64, 48, 96}};
    const float scales[][2] = {{1.f, 0.f}, {1.f, 1.f}, {-0.5f, 2.f}};
    for (const auto op_a : {Op::None, Op::Transposed})
        for (const auto op_b : {Op::None, Op::Transposed})
            for (const auto& [m, n, k] : sizes)
                for (const auto& [alpha, beta] : scales)
                    for (int pad = 0; pad < 8; ++pad) {
                        const Case x{
                            op_a,  op_b, m, n, k, pad & 1 ? 3 : 0, pad & 2 ? 5 : 0, pad & 4 ? 2 : 0,
                            alpha, beta};
                        CAPTURE(static_cast<char>(op_a), static_cast<char>(op_b), m, n, k, pad,
                                alpha, beta);
                        CHECK(wrong_elements<T>(x) == 0);
                    }
}
}  // namespace

TEST_CASE("matmul: every transpose, stride and scale, float32") { check_all<float>(); }
TEST_CASE("matmul: every transpose, stride and scale, bfloat16") { check_all<BFloat16>(); }

TEST_CASE("matmul without beta does not read what C held") {
    const std::vector<float> a{1, 2, 3, 4}, b{5, 6, 7, 8};
    std::vector<float> c(4, std::numeric_limits<float>::quiet_NaN());
    Cpu().matmul(Matmul<float, float>{.m = 2,
                                      .n = 2,
                                      .k = 2,
                                      .a = a.data(),
                                      .lda = 2,
                                      .b = b.data(),
                                      .ldb = 2,
                                      .c = c.data(),
                                      .ldc = 2});
    CHECK(c == std::vector<float>{19, 22, 43, 50});
}

TEST_CASE("matmul into no rows or no columns touches nothing") {
    const Cpu cpu;
    std::vector<float> x(4, 1.f), c(4, 2.f);
    cpu.matmul(Matmul<float, float>{.m = 0,
                                    .n = 2,
                                    .k = 2,
                                    .a = x.data(),
                                    .lda = 2,
                                    .b = x.data(),
                                    .ldb = 2,
                                    .c = c.data(),
                                    .ldc = 2});
    CHECK(c == std::vector<float>(4, 2.f));
}

TEST_CASE("matmul refuses rows that overlap") {
    const Cpu cpu;
    std::vector<float> x(16, 1.f), c(16);
    CHECK_THROWS_AS(cpu.matmul(Matmul<float, float>{.m = 2,
                                                    .n = 2,
                                                    .k = 4,
                                                    .a = x.data(),
                                                    .lda = 3,
                                                    .b = x.data(),
                                                    .ldb = 2,
                                                    .c = c.data(),
                                                    .ldc = 2}),
                    ContractError);
}

TEST_CASE("matmul from several threads at once") {
    const auto a = random_matrix<BFloat16>(40, 40, 5), b = random_matrix<BFloat16>(40, 40, 6);
    const auto run = [&](std::int64_t n) {
        std::vector<float> c(40 * 40);
        Cpu().matmul(Matmul<BFloat16, float>{.m = n,
                                             .n = n,
                                             .k = n,
                                             .a = a.data(),
                                             .lda = 40,
                                             .b = b.data(),
                                             .ldb = 40,
                                             .c = c.data(),
                                             .ldc = 40});
        return c;
    };
    std::vector<std::vector<float>> alone, together(4);
    for (const std::int64_t n : {40, 8, 33, 16}) alone.push_back(run(n));
    {
        std::vector<std::jthread> threads;
        for (std::size_t i = 0; i < 4; ++i)
            threads.emplace_back([&, i] {
                const std::int64_t sizes[] = {40, 8, 33, 16};
                for (int again = 0; again < 20; ++again) together[i] = run(sizes[i]);
            });
    }
    for (std::size_t i = 0; i < 4; ++i)  // k <= 40 products of at most 1: the bound above, doubled
        for (std::size_t j = 0; j < 1600; ++j)
            REQUIRE(together[i][j] == Approx(alone[i][j]).margin(4 * 43 * 40 * 0x1p-24));
}
