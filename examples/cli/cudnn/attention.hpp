#pragma once
#include <memory>

namespace eyas {
class SdpaLibrary;
}

namespace eyas::cli {

/// cuDNN's attention on the GPU with this number. Apart from the program, since nobody else needs
/// to read the headers of cudnn-frontend. Throws ResourceError where cuDNN does not work.
std::shared_ptr<SdpaLibrary> cudnn_attention(int ordinal);

}  // namespace eyas::cli
