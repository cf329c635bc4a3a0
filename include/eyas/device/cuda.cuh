#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <string_view>

#include "eyas/device/block.hpp"
#include "eyas/device/block_product.hpp"
#include "eyas/device/cuda_context.cuh"

namespace eyas {

namespace detail {

/// The block of threads that runs a kernel on a GPU. (The host never calls it; it compiles there
/// because kernels are made for both.)
class CudaBlock {
public:
    EYAS_HD std::int64_t index() const {
#ifdef __CUDA_ARCH__
        return blockIdx.x;
#else
        return 0;
#endif
    }
    EYAS_HD int threads() const {
#ifdef __CUDA_ARCH__
        return static_cast<int>(blockDim.x);
#else
        return 0;
#endif
    }

    template <class F>
    EYAS_HD void each([[maybe_unused]] F f) const {
#ifdef __CUDA_ARCH__
        f(static_cast<int>(threadIdx.x));
        __syncthreads();
#endif
    }

    /// Within warps by halves, then warp after warp.
    template <class T, class F, class O>
    EYAS_HD T reduce([[maybe_unused]] F f, [[maybe_unused]] O op) const {
#ifdef __CUDA_ARCH__
        __shared__ T of_warp[32];
        T v = f(static_cast<int>(threadIdx.x));
        for (int half = 16; half > 0; half /= 2) v = op(v, of_lane(v, half));
        if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
        __syncthreads();
        T all = of_warp[0];
        for (unsigned w = 1; w < blockDim.x / 32; ++w) all = op(all, of_warp[w]);
        __syncthreads();
        return all;
#else
        return T{};
#endif
    }

private:
#ifdef __CUDA_ARCH__
    template <class T>
    __device__ static T of_lane(T v, int distance) {
        return __shfl_xor_sync(~0u, v, distance);
    }
    template <int N>
    __device__ static Sums<N> of_lane(const Sums<N>& v, int distance) {
        Sums<N> other;
        for (int i = 0; i < N; ++i) other.of[i] = __shfl_xor_sync(~0u, v.of[i], distance);
        return other;
    }
#endif
};

template <class K>
__global__ void __launch_bounds__(512) run_block(const __grid_constant__ K kernel) {
    __shared__ typename K::Shared shared;
    CudaBlock block;
    kernel(block, shared);
}

}  // namespace detail

/// An NVIDIA GPU: kernels over blocks, cuBLASLt for products, one stream, memory from its pool.
/// Calls return before the work is done, except those that give the host something. Copies share
/// the stream and the pool, which live until the last one goes; so a Cuda must outlive its tensors.
/// One thread at a time. Errors are ResourceErrors that name the call; the work that failed may be
/// an earlier call's.
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
        detail::run_block<K><<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0,
                               context_->stream()>>>(kernel);
        detail::check_cuda(cudaGetLastError(), "launch of a kernel");
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

    MemoryResource* memory() const { return &context_->memory(); }
    /// Pageable memory is copied before the call returns; for pinned memory it waits.
    void upload(const void* from, void* to, std::size_t bytes) const {
        if (bytes == 0) return;
        transfer(from, to, bytes, cudaMemcpyHostToDevice);
        cudaPointerAttributes of{};
        detail::check_cuda(cudaPointerGetAttributes(&of, from), "cudaPointerGetAttributes");
        if (of.type != cudaMemoryTypeUnregistered) synchronize();
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

    /// Waits for all work so far.
    void synchronize() const {
        detail::check_cuda(cudaStreamSynchronize(context_->stream()), "cudaStreamSynchronize");
    }
    /// The most bytes of the pool that were in use at a time.
    std::uint64_t peak_bytes() const { return context_->memory().peak(); }

private:
    void transfer(const void* from, void* to, std::size_t bytes, cudaMemcpyKind kind) const {
        detail::check_cuda(cudaMemcpyAsync(to, from, bytes, kind, context_->stream()),
                           "cudaMemcpyAsync");
    }

    std::shared_ptr<detail::CudaContext> context_;
};
static_assert(BlockDevice<Cuda>);

}  // namespace eyas
