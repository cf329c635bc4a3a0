#pragma once
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <string>

#include "eyas/core/error.hpp"

namespace eyas::detail {

inline const char* remedy_of(cudaError_t e) {
    switch (e) {
        case cudaErrorNoDevice:
        case cudaErrorInsufficientDriver:
        case cudaErrorInvalidDevice:
            return "Run it where nvidia-smi shows a GPU and a driver as new as the CUDA runtime, "
                   "or "
                   "use the device Cpu";
        case cudaErrorMemoryAllocation:
            return "Use smaller batches (batch_size times max_len), or end what else uses the GPU";
        case cudaErrorNoKernelImageForDevice:
            return "Compile for this GPU's architecture";
        default:
            return "Nothing on this GPU can be used in this process any more; compute-sanitizer "
                   "finds where it began";
    }
}

/// Throws ResourceError that names the call, unless it succeeded. The status of one call may be
/// that of work which an earlier call began.
inline void check_cuda(cudaError_t e, const std::string& call) {
    if (e == cudaSuccess) return;
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

}  // namespace eyas::detail
