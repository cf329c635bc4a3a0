#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "eyas/core/memory_resource.hpp"
#include "eyas/device/cuda_error.cuh"

namespace eyas::detail {

/// The GPU's memory, from its stream-ordered pool: what is released may be given again to work that
/// comes later in the stream, and nobody waits. The pool keeps what it once took.
class CudaMemory final : public MemoryResource {
public:
    CudaMemory(int ordinal, cudaStream_t stream) : ordinal_(ordinal), stream_(stream) {
        check_cuda(cudaDeviceGetDefaultMemPool(&pool_, ordinal), "cudaDeviceGetDefaultMemPool");
        std::uint64_t keep = UINT64_MAX;
        check_cuda(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep),
                   "cudaMemPoolSetAttribute");
    }
    std::byte* allocate(std::size_t bytes) override {
        check();
        void* p = nullptr;
        check_cuda(cudaMallocAsync(&p, std::max<std::size_t>(bytes, 256), stream_),
                   "cudaMallocAsync of " + std::to_string(bytes) + " bytes");
        return static_cast<std::byte*>(p);
    }
    /// A failure is told by the next allocate() or check().
    void release(std::byte* p) noexcept override {
        if (!p) return;
        const auto status = cudaFreeAsync(p, stream_);
        ignored(status);  // the next launch does not tell of it, too
        if (lost_ == cudaSuccess) lost_ = status;
    }
    /// Throws ResourceError where a release failed.
    void check() const { check_cuda(lost_, "cudaFreeAsync"); }
    /// After a capture that came to nothing: releases that failed in it cost no memory.
    void forget_lost() { lost_ = cudaSuccess; }
    /// The most bytes of the pool that were in use at a time, and the most that graphs had, which
    /// need not have been at the same time.
    std::uint64_t peak() const {
        std::uint64_t pool = 0, graphs = 0;
        check_cuda(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemHigh, &pool),
                   "cudaMemPoolGetAttribute");
        check_cuda(cudaDeviceGetGraphMemAttribute(ordinal_, cudaGraphMemAttrUsedMemHigh, &graphs),
                   "cudaDeviceGetGraphMemAttribute");
        return pool + graphs;
    }

private:
    int ordinal_;
    cudaStream_t stream_;
    cudaMemPool_t pool_ = nullptr;
    cudaError_t lost_ = cudaSuccess;
};

}  // namespace eyas::detail
