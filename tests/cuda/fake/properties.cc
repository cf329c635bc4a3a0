// What a library asks about the GPU.
#include <cuda_runtime_api.h>

#include <atomic>

#include "fake_cuda.hpp"

namespace {
std::atomic<int> capability{90};
}

void eyas::fake_cuda::compute_capability(int major, int minor) { capability = 10 * major + minor; }

extern "C" cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    if (const int status = eyas::fake_cuda::enter("cudaGetDeviceProperties"))
        return static_cast<cudaError_t>(status);
    if (device != 0) return cudaErrorInvalidDevice;
    *properties = {};
    properties->major = capability / 10, properties->minor = capability % 10;
    properties->multiProcessorCount = 132;
    return cudaSuccess;
}
