#pragma once
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

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
        const auto [begin, size] = shard(counts);
        for (std::size_t i = 0; i < mine.size(); ++i)
            if (i < begin || i >= begin + size) mine[i] = std::nanf("");
        upload(device_, std::span<const float>(mine), values.data());
    }
    void all_gather(std::span<std::byte> bytes, std::span<const std::size_t> counts,
                    const HostBlocks::Mark&) {
        std::vector<std::byte> all(bytes.size(), std::byte{0xff});
        const auto [begin, size] = shard(counts);
        device_.download(bytes.data() + begin, all.data() + begin, size);
        ThreadRank::all_gather(all, counts);
        upload(device_, std::span<const std::byte>(all), bytes.data());
    }

private:
    struct Shard {
        std::size_t begin, size;
    };
    Shard shard(std::span<const std::size_t> counts) const {
        const auto mine = static_cast<std::size_t>(rank());
        std::size_t begin = 0;
        for (std::size_t p = 0; p < mine; ++p) begin += counts[p];
        return {begin, counts[mine]};
    }

    HostBlocks device_;
};
static_assert(ReachesMemoryOf<BlocksRank, HostBlocks> && !ReachesMemoryOf<ThreadRank, HostBlocks>);

}  // namespace eyas::test
