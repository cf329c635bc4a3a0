#pragma once
#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>

#include "eyas/device/host_block.hpp"
#endif

#include <cstdint>
#include <type_traits>

#include "eyas/device/block.hpp"

namespace eyas::detail {

constexpr std::size_t most_argument_bytes = 4096,  // of a kernel
    most_shared_bytes = std::size_t{48} << 10;     // of a block

/// What any GPU takes without being asked for more.
template <class K>
constexpr void check_kernel() {
    static_assert(std::is_trivially_copyable_v<K>, "a kernel is copied to the GPU byte by byte");
    static_assert(sizeof(K) <= most_argument_bytes);
    static_assert(sizeof(typename K::Shared) <= most_shared_bytes);
}

#ifdef __CUDACC__

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

template <class K, int most_threads = most_threads_of<K>()>
__global__ void __launch_bounds__(most_threads) run_block(const __grid_constant__ K kernel) {
    __shared__ typename K::Shared shared;
    CudaBlock block;
    kernel(block, shared);
}

/// cudaGetLastError() tells how it went.
template <class K>
void launch_kernel(std::int64_t blocks, int threads, cudaStream_t stream, const K& kernel) {
    check_kernel<K>();
    run_block<K>
        <<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0, stream>>>(kernel);
}

#else

/// Another compiler than nvcc makes no kernel of a GPU: what stands in for the CUDA runtime
/// (tests/cuda/fake) defines this function, and runs the kernel on the host, `run(backwards)`, when
/// the stream's turn comes. As after a launch, cudaGetLastError() tells how it went.
void launch_on_host(std::int64_t blocks, int threads, int most_threads, cudaStream_t stream,
                    std::function<void(bool backwards)> run);

template <class K>
void launch_kernel(std::int64_t blocks, int threads, cudaStream_t stream, const K& kernel) {
    check_kernel<K>();
    launch_on_host(blocks, threads, most_threads_of<K>(), stream,
                   [=](bool backwards) { run_on_host(blocks, threads, backwards, kernel); });
}

#endif

}  // namespace eyas::detail
