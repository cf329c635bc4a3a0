#pragma once
#include <memory>
#include <string>

#include "eyas/core/checksum.hpp"
#include "eyas/transport/handshake.hpp"
#include "eyas/transport/posix.hpp"

namespace eyas::detail {

/// Where a server's clients on its own machine find it, whatever its address: a Unix socket without
/// a file, named after the server's boot id, which goes with the process. Over it files can be
/// handed over, so that what lies in one is mapped instead of sent. (Containers with networks of
/// their own do not see each other's; they stay with the address.)
inline Address neighbour_address(const Id128& boot) {
    std::uint64_t half[2];
    static_assert(sizeof half == sizeof boot);
    std::memcpy(half, boot.data(), sizeof half);
    return {.scheme = "unix", .host = {}, .path = "@eyas-" + hex64(half[0]) + hex64(half[1])};
}

/// A link to the server of that boot id if it is on this machine, and proves to be it; null if not.
inline std::unique_ptr<Posix::Link> find_neighbour(const Id128& boot, const std::string& token,
                                                   const Id128& client, const Limit& limit,
                                                   Acquainted& known) {
    try {
        auto link = Posix({}).connect(neighbour_address(boot), limit);
        known = Handshake::as_client(*link, token, client, limit);
        if (known.boot == boot) return link;
    } catch (const Error&) {  // it is elsewhere
    }
    return nullptr;
}

}  // namespace eyas::detail
