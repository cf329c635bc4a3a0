#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace eyas {

/// What Store<B> does beyond keeping objects; the same for every backend.
struct StorePolicy {
    bool retain_on_release = true;  // false: consume-once, the last release of a sample frees it
    bool verify_checksums = true;   // compare bytes with the checksums recorded at put
    std::optional<std::uint64_t> quota_bytes = {};  // refuse puts that would pass it
    std::size_t read_threads = 2;  // for one read of 8 MiB or more; fewer bytes want no second one
    std::string auth_token = {};   // empty: only stores without a credential can be opened
};

/// Counters of one Store instance and what lies in its backend.
struct StoreHealth {
    std::uint64_t resident_objects = 0, resident_bytes = 0;  // in the backend, all processes
    double oldest_age_seconds = 0;
    std::uint64_t active_leases = 0, pending_removals = 0;  // of this instance
    std::uint64_t puts = 0, reads = 0, releases = 0, aborts = 0, collected = 0, stale_refused = 0;
    std::uint64_t bytes_written = 0, bytes_read = 0;
};

}  // namespace eyas
