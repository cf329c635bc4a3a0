#include "examples/cli/cudnn/attention.hpp"

#include "eyas/device/cudnn_sdpa.cuh"

std::shared_ptr<eyas::SdpaLibrary> eyas::cli::cudnn_attention(int ordinal,
                                                              std::size_t workspace_limit) {
    CudnnSdpaOptions options;
    if (workspace_limit > 0) options.workspace_limit = workspace_limit;
    return std::make_shared<CudnnSdpa>(ordinal, options);
}
