// What the headers of cudnn-frontend name and eyas does not use: the timing of plans. Told as
// misuse where it is called after all.
#include <cuda_runtime_api.h>

#include <string>

#include "fake_cuda.hpp"

namespace {
cudaError_t unused(const char* call) {
    eyas::fake_cuda::misuse(std::string(call) + " is not expected here");
    return cudaErrorNotSupported;
}
}  // namespace

extern "C" {
cudaError_t cudaEventCreate(cudaEvent_t*) { return unused("cudaEventCreate"); }
cudaError_t cudaEventElapsedTime(float*, cudaEvent_t, cudaEvent_t) {
    return unused("cudaEventElapsedTime");
}
cudaError_t cudaDeviceSynchronize() { return unused("cudaDeviceSynchronize"); }
}
