#pragma once
#include <cstdint>

#include "eyas/core/host_device.hpp"

namespace eyas::detail {

/// One element of a sum over ranks, in their order: ((x0 + x1) + x2) + ... Rank p's term is
/// theirs[p * stride + i], this rank's is in `mine`, where the sum goes.
template <class T>
struct RankSum {
    T* mine;
    const T* theirs;
    std::int64_t stride;
    int rank, world;

    EYAS_HD void operator()(std::int64_t i) const {
        T sum = rank == 0 ? mine[i] : theirs[i];
        for (int p = 1; p < world; ++p) sum += p == rank ? mine[i] : theirs[p * stride + i];
        mine[i] = sum;
    }
};

}  // namespace eyas::detail
