#include <cstdlib>

#include "fake_cuda.hpp"

// How many GPUs a program on the fake runtime sees, for a test that starts it.
[[maybe_unused]] static const bool told = [] {
    const char* count = std::getenv("EYAS_FAKE_GPUS");
    if (count) eyas::fake_cuda::devices(std::atoi(count));
    return true;
}();
