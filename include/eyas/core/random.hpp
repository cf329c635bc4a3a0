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

}  // namespace eyas
