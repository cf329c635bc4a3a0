#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string_view>

#include "eyas/device/block.hpp"
#include "eyas/device/block_product.hpp"
#include "eyas/device/cuda_context.cuh"
#include "eyas/device/cuda_launch.cuh"
#include "eyas/device/cuda_mark.cuh"
#include "eyas/device/cuda_recording.cuh"
#include "eyas/device/recording.hpp"

namespace eyas {

/// An NVIDIA GPU: kernels over blocks, cuBLASLt for products, one stream, memory from its pool; a
/// second stream carries large arrays to it. Calls return before the work is done, except those
/// that give the host something. Copies share the streams and the pool, which live until the last
/// one goes; so a Cuda must outlive its tensors. One thread at a time. Errors are ResourceErrors
/// that name the call; the work that failed may be an earlier call's.
class Cuda {
public:
    static constexpr std::string_view name = "cuda";
    static constexpr std::int64_t head_tile_rows = 2048;                   // of teacher states
    static constexpr std::int64_t attention_tile = std::int64_t{1} << 25;  // scores at a time

    /// Throws ResourceError where there is no such GPU.
    explicit Cuda(int ordinal = 0) : context_(detail::CudaContext::of(ordinal)) {}

    template <class K>
    void launch(std::int64_t blocks, int threads, const K& kernel) const {
        if (blocks == 0) return;
        detail::launch_kernel(blocks, threads, context_->stream(), kernel);
        detail::check_cuda(cudaGetLastError(), "cudaGetLastError after the launch of a kernel");
    }
    template <class F>
    void for_each(std::int64_t n, F f) const {
        launch_each(*this, n, f);
    }
    template <class F>
    void for_each_row(std::int64_t n, F f) const {
        launch_each(*this, n, f);
    }
    template <class F>
    double sum(std::int64_t n, F f) const {
        return launch_sum(*this, n, f);
    }

    template <class T, class TC>
    void matmul(const Matmul<T, TC>& x) const {
        matmul(BatchedMatmul<T, TC>{x});
    }
    template <class T, class TC>
    void matmul(const BatchedMatmul<T, TC>& x) const {
        if (x.each.m == 0 || x.each.n == 0 || x.count == 0) return;
        if (!context_->products().run(x, context_->workspace(), context_->stream()))
            plain_product(*this, x);
    }

    /// Attention in bfloat16 by a library from now on, of all that share this GPU's context;
    /// nullptr: own strips, which also take what it refuses. Waits for the GPU. Throws
    /// ResourceError where work before failed.
    void attend_by(std::shared_ptr<SdpaLibrary> library, SdpaRefusal on_refusal = {}) const {
        synchronize();  // plans that are in use go
        context_->sdpa().choose(std::move(library), std::move(on_refusal));
    }
    const SdpaUse& attention_use() const { return context_->sdpa().use(); }
    bool plans_sdpa(const SdpaShape& shape) const {
        if (context_->sdpa().full(shape)) synchronize(), context_->sdpa().forget();
        return context_->sdpa().find(shape);
    }
    void sdpa(const SdpaShape& shape, const SdpaArrays& arrays) const {
        auto& plan = context_->sdpa().plan(shape);
        Tensor workspace(DType::U8, {static_cast<std::int64_t>(plan.workspace_bytes())}, memory());
        plan.execute(arrays, workspace.mutable_view().data, context_->stream());
    }

    /// Work that can be done again: CudaRecording tells of f and of errors.
    using Recording = CudaRecording;
    template <class F>
    Recording record(const F& f) const {
        auto& memory = context_->memory();
        context_->workspace();  // products to come keep it
        memory.check();
        try {
            return CudaRecording(context_->stream(), [&] { f(), memory.check(); });
        } catch (...) {
            memory.forget_lost();  // what f did not release goes with its graph
            throw;
        }
    }
    void replay(const Recording& r) const { r.launch(context_->stream()); }
    /// Memory that graphs of this GPU had goes back to it, but of those at work; others that are
    /// still there get theirs again when they are launched.
    void trim_recordings() const noexcept {
        detail::ignored(cudaDeviceGraphMemTrim(context_->ordinal()));
    }
    /// Another one where attention is chosen anew.
    std::uint64_t work_version() const { return context_->sdpa().choices(); }

    MemoryResource* memory() const { return &context_->memory(); }
    /// Pageable memory has been read when it returns; large arrays are carried while the work
    /// before goes on (CudaUploads). For pinned memory, and a GPU's, it waits.
    void upload(const void* from, void* to, std::size_t bytes) const {
        if (bytes == 0) return;
        if (carries(from, bytes)) return context_->uploads().upload(from, to, bytes);
        const auto type = type_of(from);
        if (type == cudaMemoryTypeDevice)  // states that a transport brought to the GPU
            copy(from, to, bytes);
        else
            transfer(from, to, bytes, cudaMemcpyHostToDevice);
        if (type != cudaMemoryTypeUnregistered) synchronize();
    }
    /// Whether upload() takes that along while the work before goes on, and waits for some of it
    /// only where more than the ring holds is under way.
    bool carries(const void* from, std::size_t bytes) const {
        return bytes >= detail::CudaUploads::least_bytes &&
               type_of(from) == cudaMemoryTypeUnregistered;
    }
    void download(const void* from, void* to, std::size_t bytes) const {
        if (bytes == 0) return;
        transfer(from, to, bytes, cudaMemcpyDeviceToHost);
        synchronize();
    }
    void copy(const void* from, void* to, std::size_t bytes) const {
        if (bytes > 0) transfer(from, to, bytes, cudaMemcpyDeviceToDevice);
    }
    void zero(void* to, std::size_t bytes) const {
        if (bytes > 0)
            detail::check_cuda(cudaMemsetAsync(to, 0, bytes, context_->stream()),
                               "cudaMemsetAsync");
    }

    /// GPUs that this process sees. None where CUDA does not work: making a Cuda tells why.
    static int count() noexcept {
        int n = 0;
        const auto status = cudaGetDeviceCount(&n);
        detail::ignored(status);
        return status == cudaSuccess ? n : 0;
    }

    /// How far the work has come: other streams of this GPU can be held back until then.
    CudaMark mark() const { return CudaMark(context_->stream()); }
    int ordinal() const { return context_->ordinal(); }
    /// Waits for all work so far.
    void synchronize() const {
        detail::check_cuda(cudaStreamSynchronize(context_->stream()), "cudaStreamSynchronize");
        context_->memory().check();  // when nothing is under way to the host any more
    }
    /// The most bytes of the pool that were in use at a time, and the most of graphs.
    std::uint64_t peak_bytes() const { return context_->memory().peak(); }

private:
    static cudaMemoryType type_of(const void* p) {
        cudaPointerAttributes of{};
        detail::check_cuda(cudaPointerGetAttributes(&of, p), "cudaPointerGetAttributes");
        return of.type;
    }
    void transfer(const void* from, void* to, std::size_t bytes, cudaMemcpyKind kind) const {
        detail::check_cuda(cudaMemcpyAsync(to, from, bytes, kind, context_->stream()),
                           "cudaMemcpyAsync");
    }

    std::shared_ptr<detail::CudaContext> context_;
};
static_assert(SdpaDevice<Cuda>);
static_assert(RecordingDevice<Cuda>);

}  // namespace eyas
