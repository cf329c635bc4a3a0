#pragma once
#include <utility>

#include "eyas/device/concept.hpp"

namespace eyas {

/// The mark of a device whose calls are done when they return, over the host's own memory.
struct NothingPending {};

/// How far a device's work has come, for somebody else than its thread to wait for, or to order
/// other work behind: what `mark()` of a device with memory of its own gives. Called on the thread
/// that drives the device; any other may use what it gives.
template <Device D>
auto mark_of([[maybe_unused]] const D& device) {
    if constexpr (requires { device.mark(); })
        return device.mark();
    else
        return NothingPending{};
}
template <Device D>
using MarkOf = decltype(mark_of(std::declval<const D&>()));

}  // namespace eyas
