#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "eyas/collective/shard_list.hpp"
#include "eyas/device/host_blocks.hpp"
#include "eyas/device/transfer.hpp"
#include "tests/collective/thread_group.hpp"

namespace eyas::test {

/// A rank of a ThreadGroup that reaches the memory of its HostBlocks, by that device's copies
/// alone. What a call leaves to nobody is NaN afterwards, so that nobody relies on it.
class BlocksRank : public ThreadRank {
public:
    BlocksRank(ThreadGroup& group, int rank, const HostBlocks& device)
        : ThreadRank(group, rank), device_(device) {}

    using ThreadRank::all_gather, ThreadRank::reduce_scatter;
    bool reaches(const HostBlocks& device) const { return device.memory() == device_.memory(); }

    void reduce_scatter(std::span<float> values, std::span<const std::size_t> counts,
                        const HostBlocks::Mark&) {
        std::vector<float> mine(values.size());
        download(device_, values.data(), std::span(mine));
        ThreadRank::reduce_scatter(mine, counts);
        std::vector<float> left(values.size(), std::nanf(""));
        const auto starts = detail::starts_of(counts);
        std::ranges::copy(detail::shard_of(std::span(mine), starts, rank()),
                          detail::shard_of(std::span(left), starts, rank()).begin());
        upload(device_, std::span<const float>(left), values.data());
    }
    void all_gather(std::span<std::byte> bytes, std::span<const std::size_t> counts,
                    const HostBlocks::Mark&) {
        std::vector<std::byte> all(bytes.size(), std::byte{0xff});
        const auto starts = detail::starts_of(counts);
        download(device_, detail::shard_of(bytes, starts, rank()).data(),
                 detail::shard_of(std::span(all), starts, rank()));
        ThreadRank::all_gather(all, counts);
        upload(device_, std::span<const std::byte>(all), bytes.data());
    }

private:
    HostBlocks device_;
};
static_assert(ReachesMemoryOf<BlocksRank, HostBlocks> && !ReachesMemoryOf<ThreadRank, HostBlocks>);

}  // namespace eyas::test
