#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "eyas/core/memory_resource.hpp"
#include "eyas/device/cuda_context.cuh"

namespace eyas {

/// Memory of a GPU that a loader's threads and a transport fill, beside the work of Cuda: a stream
/// of its own, and no pool, since network cards cannot be told of a pool's memory. Any thread;
/// ResourceError for CUDA's errors.
class CudaRoom final : public DeviceRoom {
public:
    explicit CudaRoom(int ordinal) : ordinal_(ordinal) {
        enter();
        stream_ = detail::make_stream();
    }

    std::string_view kind() const override { return "cuda"; }
    void enter() override { detail::CudaContext::make_current(ordinal_); }
    std::byte* allocate(std::size_t bytes) override {
        enter();
        void* p = nullptr;
        detail::check_cuda(cudaMalloc(&p, std::max<std::size_t>(bytes, 256)),
                           "cudaMalloc of " + std::to_string(bytes) + " bytes");
        return static_cast<std::byte*>(p);
    }
    void release(std::byte* p) noexcept override {
        if (p) detail::ignored(cudaFree(p));
    }
    void copy_in(const void* from_host, void* to, std::size_t bytes) override {
        if (bytes == 0) return;
        enter();
        detail::check_cuda(
            cudaMemcpyAsync(to, from_host, bytes, cudaMemcpyHostToDevice, stream_.get()),
            "cudaMemcpyAsync");
        detail::check_cuda(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
    }
    void zero(void* to, std::size_t bytes) override {
        if (bytes == 0) return;
        enter();
        detail::check_cuda(cudaMemsetAsync(to, 0, bytes, stream_.get()), "cudaMemsetAsync");
        detail::check_cuda(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
    }

private:
    int ordinal_;
    detail::OwnedStream stream_;
};

}  // namespace eyas
