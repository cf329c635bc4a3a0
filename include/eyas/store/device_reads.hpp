#pragma once
#include <string>
#include <string_view>

#include "eyas/store/remote_pool.hpp"
#include "eyas/store/store.hpp"

namespace eyas {

/// Why reads from a pool cannot fill memory of a device ("cuda"); empty where they can. Objects of
/// a pool that is found on this machine are mapped into the host's memory instead.
template <class T>
std::string why_not_into(RemotePool<T>& pool, std::string_view kind) {
    auto& client = pool.client();
    if constexpr (ReachesDevices<typename T::backend_type>) {
        if (!client.backend().reaches(kind))
            return "UCX of this machine has no " + std::string(kind) + " transports";
        return client.options().same_host
                   ? "a pool on this machine would be mapped; same_host=0 in its address forbids it"
                   : "";
    } else {
        return "sockets write to the host's memory alone; eyas+ucx:// may do more";
    }
}

/// Why Store::read_each() cannot fill memory of a device; empty where it can. Checksums are
/// verified by the host, which sees nothing of what lies there.
template <StoreBackend B>
std::string why_not_into(Store<B>& store, std::string_view kind) {
    if constexpr (RegistersMemory<B, DeviceRoom> && ReadsElsewhere<B>) {
        const auto why = why_not_into(store.backend(), kind);
        return why.empty() && store.policy().verify_checksums
                   ? "checksums are verified, which the host does; --no-verify leaves it out"
                   : why;
    } else if constexpr (ReadsElsewhere<B>) {
        return why_not_into(store.backend(), kind);
    } else {
        return "this store's bytes are in the host's memory";
    }
}

}  // namespace eyas
