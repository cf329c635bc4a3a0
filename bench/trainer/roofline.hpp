#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "bench/timing.hpp"
#include "bench/trainer/shape.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/ops/attention.hpp"
#include "eyas/ops/attention_backward.hpp"

// What a step cannot be faster than with this library of matrix products: its products, alone.
namespace eyas::bench {

/// Seconds of attention's products: two forward, five backward, over the tiles of keys that a
/// causal row sees, heads side by side as in the op.
inline double attention_alone(const StepShape& s, std::int64_t T, std::int64_t ttt,
                              std::size_t runs) {
    const Cpu cpu;
    const auto width = s.D / s.H;
    const TttAttention<float> a{
        .batch = 1, .tokens = T, .heads = s.H, .kv_heads = s.G, .head_dim = width};
    const std::vector<float> keys(static_cast<std::size_t>(T * width), 1e-3f);
    const auto head = [&](std::int64_t) {
        auto& t = eyas::detail::AttentionScratch::of_thread();
        for (auto* columns : {&t.p, &t.dp}) columns->resize(T, 0);
        t.out.resize(static_cast<std::size_t>(eyas::detail::attention_rows * width));
        t.d_out.assign(keys.size(), 0.f);  // takes the gradients of keys and values
        for (std::int64_t begin = 0; begin < T;) {
            const auto tile = eyas::detail::attention_tile(a, 0, begin);
            const float* rows = keys.data() + begin * width;
            for (int product = 0; product < 3; ++product)  // scores, scores again, their gradient
                eyas::detail::against_keys(cpu, tile, rows, keys, width, t.p);
            for (int product = 0; product < 2; ++product)  // of values, of the scores' gradient
                eyas::detail::over_keys(cpu, tile, t.p, keys, width, t.out.data());
            for (int product = 0; product < 2; ++product)
                eyas::detail::add_to_keys(cpu, tile, t.p, rows, width, t.d_out.data());
            begin = tile.end;
        }
    };
    return static_cast<double>(ttt) * times_of([&] { cpu.for_each_row(s.H, head); }, runs).median;
}

/// Seconds of x [m, k] W^T with W [n, k], by the faster of the library's two ways.
inline double forward_alone(const Cpu& cpu, std::int64_t m, std::int64_t n, std::int64_t k,
                            std::size_t runs) {
    const std::vector<float> x(static_cast<std::size_t>(m * k), 1.f),
        w(static_cast<std::size_t>(n * k), 1.f);
    std::vector<float> y(static_cast<std::size_t>(m * n)), packed(w.size());
    const Matmul<float, float> plain{Op::None, Op::Transposed, m, n,        k, x.data(),
                                     k,        w.data(),       k, y.data(), n};
    const double seconds = times_of([&] { cpu.matmul(plain); }, runs).median;
    if (!cpu.packs(n, k)) return seconds;
    cpu.pack(w.data(), n, k, packed.data());
    const PackedMatmul<float> product{m, n, k, x.data(), packed.data(), y.data()};
    return std::min(seconds, times_of([&] { cpu.matmul(product); }, runs).median);
}

/// Seconds that the step's matrix products alone would take on the device: every shape and
/// transpose, attention's included, float32, median of `runs`.
inline double products_alone(const StepShape& s, std::int64_t T, std::int64_t ttt,
                             std::size_t runs) {
    const Cpu cpu;
    double total = attention_alone(s, T, ttt, runs);
    const auto time = [&](Op a, Op b, std::int64_t m, std::int64_t n, std::int64_t k,
                          std::int64_t count) {
        std::vector<float> x(static_cast<std::size_t>(m * k), 1.f),
            y(static_cast<std::size_t>(k * n), 1.f), z(static_cast<std::size_t>(m * n));
        const Matmul<float, float> product{
            a,        b, m, n, k, x.data(), a == Op::None ? k : m, y.data(), b == Op::None ? n : k,
            z.data(), n};
        total += static_cast<double>(count) * times_of([&] { cpu.matmul(product); }, runs).median;
    };
    total += forward_alone(cpu, T, s.V, s.D, runs);  // the teacher
    total += forward_alone(cpu, T, s.D, 3 * s.D, runs);
    time(Op::Transposed, Op::None, s.D, 3 * s.D, T, 1);
    for (const auto& l : layers_of(s)) {
        total += static_cast<double>(ttt) * forward_alone(cpu, T, l.out, l.in, runs);
        time(Op::None, Op::None, T, l.in, l.out, ttt);
        time(Op::Transposed, Op::None, l.out, l.in, T, ttt);
    }
    return total;
}

}  // namespace eyas::bench
