#pragma once
#include <nccl.h>

#include <string>

#include "eyas/core/error.hpp"

namespace eyas::detail {

inline const char* remedy_of(ncclResult_t r) {
    switch (r) {
        case ncclUnhandledCudaError:
            return "A call of CUDA failed inside NCCL, which says which with NCCL_DEBUG=WARN; "
                   "check "
                   "that driver, CUDA and NCCL fit each other and that the GPU has memory left";
        case ncclSystemError:
            return "Check the network between the ranks (NCCL_SOCKET_IFNAME chooses the interface) "
                   "and the room in /dev/shm; NCCL_DEBUG=WARN says more";
        case ncclInvalidArgument:
        case ncclInvalidUsage:
            return "Give each rank a GPU of its own, and all ranks the same version of NCCL; "
                   "NCCL_DEBUG=WARN says more";
        case ncclRemoteError:
            return "See what the other ranks said last; then start all ranks again";
        default:
            return "Start all ranks again with NCCL_DEBUG=INFO, which says what NCCL did";
    }
}

/// Throws TransportError that names the call, for what is neither success nor under way. `comm`:
/// whose last words are told, where there is one.
inline void check_nccl(ncclResult_t r, const std::string& call, ncclComm_t comm = nullptr) {
    if (r == ncclSuccess || r == ncclInProgress) return;
    std::string what = ncclGetErrorString(r);
    const char* more = ncclGetLastError(comm);
    if (more && *more) what += " (" + std::string(more) + ")";
    throw TransportError(what, call, remedy_of(r));
}

}  // namespace eyas::detail
