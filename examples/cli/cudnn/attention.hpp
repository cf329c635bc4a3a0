#pragma once
#include <cstddef>
#include <memory>

namespace eyas {
class SdpaLibrary;
}

namespace eyas::cli {

/// cuDNN's attention on the GPU with this number. Apart from the program, since nobody else needs
/// to read the headers of cudnn-frontend. `workspace_limit` in bytes, 0: CudnnSdpaOptions' own.
/// Throws ResourceError where cuDNN does not work.
std::shared_ptr<SdpaLibrary> cudnn_attention(int ordinal, std::size_t workspace_limit = 0);

}  // namespace eyas::cli
