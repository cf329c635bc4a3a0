#pragma once
#include <array>
#include <span>

namespace eyas {

/// Whether any rank says yes: the same answer everywhere. All ranks of the collective call it.
template <class C>
bool any_rank(C& collective, bool mine) {
    std::array<float, 1> flag{mine ? 1.f : 0.f};
    collective.all_reduce(std::span<float>(flag));
    return flag[0] > 0;
}

}  // namespace eyas
