#include "examples/cli/cudnn/attention.hpp"

#include "eyas/device/cudnn_sdpa.cuh"

std::shared_ptr<eyas::SdpaLibrary> eyas::cli::cudnn_attention(int ordinal) {
    return std::make_shared<CudnnSdpa>(ordinal);
}
