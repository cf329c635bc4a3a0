#pragma once
#include <concepts>
#include <cstdio>
#include <memory>
#include <string>
#include <type_traits>

#include "eyas/core/memory_resource.hpp"
#include "eyas/sample/manifest.hpp"
#include "eyas/store/device_reads.hpp"
#ifdef EYAS_CLI_CUDA
#include "eyas/device/cuda.cuh"
#include "eyas/device/cuda_room.cuh"
#endif

namespace eyas::cli {

/// Chooses where the states of a GPU's batches lie, and says so: in its memory where the store
/// reads into that, else in the host's, from where they are copied (null, as on a CPU, of which
/// nothing is said).
template <class D, class S, class Samples>
std::unique_ptr<DeviceRoom> room_for_states([[maybe_unused]] const D& device,
                                            [[maybe_unused]] S& store, const Samples&) {
#ifdef EYAS_CLI_CUDA
    if constexpr (std::same_as<D, Cuda>) {
        auto why = why_not_into(store, Cuda::name);
        if (why.empty() && !std::same_as<std::remove_const_t<Samples>, Manifest>)
            why = "a stream does not tell how long its samples are";
        if (why.empty()) {
            std::printf("features: read into GPU memory\n");
            return std::make_unique<CudaRoom>(device.ordinal());
        }
        std::printf("features: through pinned host memory (%s)\n", why.c_str());
    }
#endif
    return nullptr;
}

}  // namespace eyas::cli
