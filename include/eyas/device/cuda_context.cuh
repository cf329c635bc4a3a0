#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "eyas/core/memory_resource.hpp"
#include "eyas/device/cuda_error.cuh"
#include "eyas/device/cuda_products.cuh"

namespace eyas::detail {

/// The GPU's memory, from its stream-ordered pool: what is released may be given again to work that
/// comes later in the stream, and nobody waits. The pool keeps what it once took.
class CudaMemory final : public MemoryResource {
public:
    CudaMemory(int ordinal, cudaStream_t stream) : stream_(stream) {
        check_cuda(cudaDeviceGetDefaultMemPool(&pool_, ordinal), "cudaDeviceGetDefaultMemPool");
        std::uint64_t keep = UINT64_MAX;
        check_cuda(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep),
                   "cudaMemPoolSetAttribute");
    }
    std::byte* allocate(std::size_t bytes) override {
        check_cuda(lost_, "cudaFreeAsync");
        void* p = nullptr;
        check_cuda(cudaMallocAsync(&p, std::max<std::size_t>(bytes, 256), stream_),
                   "cudaMallocAsync of " + std::to_string(bytes) + " bytes");
        return static_cast<std::byte*>(p);
    }
    /// A failure is told by the next allocate().
    void release(std::byte* p) noexcept override {
        if (!p) return;
        const auto status = cudaFreeAsync(p, stream_);
        if (lost_ == cudaSuccess) lost_ = status;
    }
    /// The most bytes that were in use at a time.
    std::uint64_t peak() const {
        std::uint64_t bytes = 0;
        check_cuda(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemHigh, &bytes),
                   "cudaMemPoolGetAttribute");
        return bytes;
    }

private:
    cudaStream_t stream_;
    cudaMemPool_t pool_ = nullptr;
    cudaError_t lost_ = cudaSuccess;
};

/// What a process holds of one GPU: a stream, the pool on it, cuBLASLt. Used by one thread at a
/// time.
class CudaContext {
public:
    /// The process's context of a GPU; made when first asked for. Throws ResourceError where there
    /// is no such GPU.
    static std::shared_ptr<CudaContext> of(int ordinal) {
        static std::mutex mutex;
        static std::map<int, std::weak_ptr<CudaContext>> all;
        const std::lock_guard lock(mutex);
        auto context = all[ordinal].lock();
        if (!context) all[ordinal] = context = std::make_shared<CudaContext>(ordinal);
        return context;
    }

    explicit CudaContext(int ordinal) : ordinal_(checked(ordinal)) {
        check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                   "cudaStreamCreateWithFlags");
        memory_ = std::make_unique<CudaMemory>(ordinal, stream_);
        products_ = std::make_unique<CudaProducts>();
    }
    CudaContext(const CudaContext&) = delete;
    CudaContext& operator=(const CudaContext&) = delete;
    ~CudaContext() {
        cudaStreamSynchronize(stream_);
        if (workspace_) memory_->release(workspace_);
        products_.reset();
        memory_.reset();
        cudaStreamDestroy(stream_);
    }

    /// The stream, with its GPU as the calling thread's.
    cudaStream_t stream() const {
        static thread_local int current = -1;
        if (current != ordinal_) check_cuda(cudaSetDevice(ordinal_), "cudaSetDevice");
        current = ordinal_;
        return stream_;
    }
    int ordinal() const { return ordinal_; }
    CudaMemory& memory() { return *memory_; }
    CudaProducts& products() { return *products_; }
    void* workspace() {
        if (!workspace_) workspace_ = memory_->allocate(CudaProducts::workspace_bytes);
        return workspace_;
    }

private:
    static int checked(int ordinal) {
        int count = 0;
        const auto status = cudaGetDeviceCount(&count);
        if (status != cudaSuccess || ordinal < 0 || ordinal >= count)
            throw ResourceError(
                "no CUDA device " + std::to_string(ordinal) + " (" +
                    (status == cudaSuccess ? std::to_string(count) + " found"
                                           : std::string(cudaGetErrorString(status))) +
                    ")",
                "Cuda", remedy_of(cudaErrorNoDevice));
        check_cuda(cudaSetDevice(ordinal), "cudaSetDevice");
        return ordinal;
    }

    int ordinal_;
    cudaStream_t stream_ = nullptr;
    std::unique_ptr<CudaMemory> memory_;
    std::unique_ptr<CudaProducts> products_;
    std::byte* workspace_ = nullptr;
};

}  // namespace eyas::detail
