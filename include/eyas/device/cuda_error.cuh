#pragma once
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <type_traits>

#include "eyas/core/error.hpp"

namespace eyas::detail {

inline const char* remedy_of(cudaError_t e) {
    switch (e) {
        case cudaErrorNoDevice:
        case cudaErrorInsufficientDriver:
        case cudaErrorInvalidDevice:
            return "Run it where nvidia-smi shows a GPU and a driver as new as the CUDA runtime, "
                   "or use the device Cpu";
        case cudaErrorMemoryAllocation:
            return "Use smaller batches (batch_size times max_len), or end what else uses the GPU";
        case cudaErrorNoKernelImageForDevice:
            return "Compile for this GPU's architecture";
        case cudaErrorStreamCaptureUnsupported:
        case cudaErrorStreamCaptureInvalidated:
        case cudaErrorStreamCaptureImplicit:
            return "Do without recordings (Eagle3Options::replay_steps)";
        default:
            return "Nothing on this GPU can be used in this process any more; compute-sanitizer "
                   "finds where it began";
    }
}

/// The status of a call that has nobody to tell: a destructor's. CUDA keeps an error for the thread
/// until it is asked for; nobody hears of it again from a later call that goes well.
template <class Status>
void ignored(Status s) noexcept {
    if constexpr (std::is_same_v<Status, cudaError_t>)
        if (s != cudaSuccess) [[maybe_unused]]
            const auto taken = cudaGetLastError();
}

/// Throws ResourceError that names the call, unless it succeeded. The status of one call may be
/// that of work which an earlier call began. What is told here is not told by the next launch, too;
/// only a fault that ended the GPU's work for good comes with every later call.
inline void check_cuda(cudaError_t e, const std::string& call) {
    if (e == cudaSuccess) return;
    ignored(e);
    throw ResourceError(std::string(cudaGetErrorName(e)) + ", " + cudaGetErrorString(e), call,
                        remedy_of(e));
}

inline void check_cublas(cublasStatus_t s, const std::string& call) {
    if (s == CUBLAS_STATUS_SUCCESS) return;
    throw ResourceError(cublasLtGetStatusString(s), call,
                        s == CUBLAS_STATUS_ALLOC_FAILED
                            ? "Use smaller batches, or end what else uses the GPU"
                            : "Check sizes and leading dimensions; cuBLASLt must fit the driver");
}

template <auto destroy>
struct Destroys {
    template <class T>
    void operator()(T* handle) const noexcept {
        ignored(destroy(handle));
    }
};
/// A handle of CUDA or of one of its libraries, destroyed by one of their functions.
template <class Handle, auto destroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroys<destroy>>;
using OwnedStream = Owned<cudaStream_t, cudaStreamDestroy>;
using OwnedEvent = Owned<cudaEvent_t, cudaEventDestroy>;

/// A stream that waits for no other by itself.
inline OwnedStream make_stream() {
    cudaStream_t stream = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
               "cudaStreamCreateWithFlags");
    return OwnedStream(stream);
}
/// An event that orders streams and keeps no time.
inline OwnedEvent make_event() {
    cudaEvent_t event = nullptr;
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming),
               "cudaEventCreateWithFlags");
    return OwnedEvent(event);
}

}  // namespace eyas::detail
