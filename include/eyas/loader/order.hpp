#pragma once
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/core/random.hpp"

namespace eyas {

/// Which samples rank `rank` of `world` visits in an epoch, and in which order: indices into the
/// manifest. A permutation of [0, size) drawn with seed + epoch (or the identity), wrapped around
/// to a multiple of `world`, then every world-th entry. So all ranks get equally many. Equal to
/// torch's DistributedSampler(drop_last=False) as SpecForge uses it. Throws ContractError for an
/// impossible rank or size.
inline std::vector<std::int64_t> epoch_order(std::int64_t size, std::uint64_t seed,
                                             std::int64_t epoch, std::int64_t rank = 0,
                                             std::int64_t world = 1, bool shuffle = true) {
    if (size < 0 || epoch < 0 || world < 1 || rank < 0 || rank >= world)
        throw ContractError("size " + std::to_string(size) + ", epoch " + std::to_string(epoch) +
                                ", rank " + std::to_string(rank) + " of " + std::to_string(world),
                            "epoch_order", "Use 0 <= rank < world and sizes from 0");
    if (size == 0) return {};
    std::vector<std::int64_t> all;
    if (shuffle) {
        all = torch_randperm(size, seed + static_cast<std::uint64_t>(epoch));
    } else {
        all.resize(static_cast<std::size_t>(size));
        std::iota(all.begin(), all.end(), std::int64_t{0});
    }
    std::vector<std::int64_t> mine;
    for (std::int64_t i = 0; i < (size + world - 1) / world; ++i)
        mine.push_back(all[static_cast<std::size_t>((rank + i * world) % size)]);
    return mine;
}

}  // namespace eyas
