#pragma once
#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

namespace eyas::detail {

/// Where each rank's shard begins, and where the last ends, of shards that lie one after the other.
using ShardStarts = std::vector<std::size_t>;

inline ShardStarts starts_of(std::span<const std::size_t> counts) {
    ShardStarts starts(counts.size() + 1);
    std::partial_sum(counts.begin(), counts.end(), starts.begin() + 1);
    return starts;
}

/// `n` elements in a shard for each rank; they differ by one at most.
inline std::vector<std::size_t> even_shards(std::size_t n, int world) {
    const auto ranks = static_cast<std::size_t>(world);
    std::vector<std::size_t> counts(ranks, n / ranks);
    for (std::size_t p = 0; p < n % ranks; ++p) ++counts[p];
    return counts;
}

template <class T>
std::span<T> shard_of(std::span<T> values, const ShardStarts& starts, int rank) {
    const auto at = static_cast<std::size_t>(rank);
    return values.subspan(starts[at], starts[at + 1] - starts[at]);
}

/// Elements of the longest.
inline std::size_t longest_shard(const ShardStarts& starts) {
    std::size_t n = 0;
    for (std::size_t p = 0; p + 1 < starts.size(); ++p) n = std::max(n, starts[p + 1] - starts[p]);
    return n;
}

/// The k-th piece of `each` elements, the last of what is left; empty behind the end.
template <class T>
std::span<T> segment_of(std::span<T> all, std::size_t k, std::size_t each) {
    const auto begin = std::min(all.size(), k * each);
    return all.subspan(begin, std::min(each, all.size() - begin));
}

}  // namespace eyas::detail
