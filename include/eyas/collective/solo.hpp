#pragma once
#include <cstddef>
#include <span>

#include "eyas/collective/concept.hpp"

namespace eyas {

/// A group of one: sums are what they were, nobody waits.
class Solo {
public:
    int rank() const { return 0; }
    int world() const { return 1; }
    template <class T>
    void all_reduce(std::span<T>) {}
    void broadcast(std::span<std::byte>, int) {}
    void reduce_scatter(std::span<float>, std::span<const std::size_t>) {}
    void all_gather(std::span<std::byte>, std::span<const std::size_t>) {}
    void gather(std::span<std::byte>, std::span<const std::size_t>, int) {}
    void barrier() {}
};
static_assert(CollectiveBackend<Solo>);

}  // namespace eyas
