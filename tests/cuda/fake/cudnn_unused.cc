// What the headers of cudnn-frontend name and eyas does not use: filters of convolutions.
// Told as misuse where it is called after all.
#include <cudnn.h>

#include <string>

#include "fake_cuda.hpp"

namespace {
cudnnStatus_t unused(const char* call) {
    eyas::fake_cuda::misuse(std::string(call) + " is not expected here");
    return CUDNN_STATUS_NOT_SUPPORTED;
}
}  // namespace

extern "C" {

cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t*) {
    return unused("cudnnCreateFilterDescriptor");
}
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t) {
    return unused("cudnnDestroyFilterDescriptor");
}
cudnnStatus_t cudnnSetFilterNdDescriptor(cudnnFilterDescriptor_t, cudnnDataType_t,
                                         cudnnTensorFormat_t, int, const int[]) {
    return unused("cudnnSetFilterNdDescriptor");
}
cudnnStatus_t cudnnReorderFilterAndBias(cudnnHandle_t, const cudnnFilterDescriptor_t,
                                        cudnnReorderType_t, const void*, void*, int, const void*,
                                        void*) {
    return unused("cudnnReorderFilterAndBias");
}
}  // extern "C"
