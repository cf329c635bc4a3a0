#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "fake_cuda.hpp"

// How many GPUs a program on the fake runtime sees, for a test that starts it: those that there
// are, or of them those that CUDA_VISIBLE_DEVICES lists.
[[maybe_unused]] static const bool told = [] {
    const char* count = std::getenv("EYAS_FAKE_GPUS");
    const char* shown = std::getenv("CUDA_VISIBLE_DEVICES");
    if (count) eyas::fake_cuda::devices(std::atoi(count));
    if (count && shown)
        eyas::fake_cuda::devices(
            1 + static_cast<int>(std::ranges::count(std::string_view(shown), ',')));
    return true;
}();
