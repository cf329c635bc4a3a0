#pragma once
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

namespace eyas {

/// torch.randperm(n) on the CPU with a generator seeded by `seed` (Mersenne Twister, one draw per
/// element, swap towards the front). Equal to torch for n below 2^32/20.
inline std::vector<std::int64_t> torch_randperm(std::int64_t n, std::uint64_t seed) {
    std::mt19937 random(static_cast<std::uint32_t>(seed));
    std::vector<std::int64_t> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), std::int64_t{0});
    for (std::int64_t i = 0; i + 1 < n; ++i) {
        const auto k = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n - i));
        std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(i + k)]);
    }
    return order;
}

/// A well-mixed 64-bit number of two others. Source: the finaliser of splitmix64.
constexpr std::uint64_t mixed(std::uint64_t a, std::uint64_t b) {
    std::uint64_t x = a + 0x9E3779B97F4A7C15u * (b + 1);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/// A number in [0, 1) that depends on its keys alone, so that who draws what, and in which order,
/// does not matter: of draw `purpose` at token `position` of sequence `sequence` in run `seed`.
constexpr double keyed_uniform(std::uint64_t seed, std::uint64_t sequence, std::uint64_t position,
                               std::uint64_t purpose = 0) {
    const auto bits = mixed(mixed(mixed(seed, sequence), position), purpose);
    return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

}  // namespace eyas
