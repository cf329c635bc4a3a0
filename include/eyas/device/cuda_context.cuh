#pragma once
#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "eyas/device/cuda_error.cuh"
#include "eyas/device/cuda_memory.cuh"
#include "eyas/device/cuda_products.cuh"
#include "eyas/device/cuda_sdpa.cuh"
#include "eyas/device/cuda_uploads.cuh"

namespace eyas::detail {

/// What a process holds of one GPU: a stream, the pool on it, cuBLASLt, the way of large arrays.
/// Used by one thread at a time.
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

    explicit CudaContext(int ordinal)
        : ordinal_(checked(ordinal)), stream_(make_stream()), memory_(ordinal, stream_.get()) {}
    CudaContext(const CudaContext&) = delete;
    CudaContext& operator=(const CudaContext&) = delete;
    ~CudaContext() {
        ignored(cudaStreamSynchronize(stream_.get()));
        if (workspace_) memory_.release(workspace_);
    }

    /// The stream, with its GPU as the calling thread's.
    cudaStream_t stream() const {
        make_current(ordinal_);
        return stream_.get();
    }
    int ordinal() const { return ordinal_; }
    /// Makes a GPU the calling thread's. All code of eyas does it here.
    static void make_current(int ordinal) {
        static thread_local int current = -1;
        if (current == ordinal) return;
        check_cuda(cudaSetDevice(ordinal), "cudaSetDevice");
        current = ordinal;
    }
    CudaMemory& memory() { return memory_; }
    CudaProducts& products() { return products_; }
    SdpaPlans& sdpa() { return sdpa_; }
    void* workspace() {
        if (!workspace_) workspace_ = memory_.allocate(CudaProducts::workspace_bytes);
        return workspace_;
    }
    CudaUploads& uploads() {
        if (!uploads_) uploads_.emplace(memory_, stream());
        return *uploads_;
    }

private:
    static int checked(int ordinal) {
        int count = 0;
        const auto status = cudaGetDeviceCount(&count);
        ignored(status);  // told below
        if (status != cudaSuccess || ordinal < 0 || ordinal >= count)
            throw ResourceError("no CUDA device " + std::to_string(ordinal) + " (" +
                                    (status == cudaSuccess ? std::to_string(count) + " found"
                                                           : std::string("cudaGetDeviceCount: ") +
                                                                 cudaGetErrorString(status)) +
                                    ")",
                                "Cuda", remedy_of(cudaErrorNoDevice));
        make_current(ordinal);
        return ordinal;
    }

    int ordinal_;
    OwnedStream stream_;
    CudaMemory memory_;
    CudaProducts products_;
    SdpaPlans sdpa_;
    std::byte* workspace_ = nullptr;
    std::optional<CudaUploads> uploads_;
};

}  // namespace eyas::detail
