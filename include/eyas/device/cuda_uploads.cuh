#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "eyas/device/cuda_error.cuh"
#include "eyas/device/cuda_memory.cuh"

namespace eyas::detail {

/// Arrays in pageable memory on their way to the GPU. They go in pieces through a ring: the host
/// fills a piece of pinned memory, a stream of its own carries it to a piece of the GPU's memory
/// while the main stream still computes, and the main stream puts it where it belongs when its turn
/// comes. So the host is free when it has read the array, and waits for the main stream only where
/// all pieces are on their way. One thread.
class CudaUploads {
public:
    static constexpr std::size_t least_bytes = std::size_t{1} << 20;  // of what is worth it

    /// Ready when the main stream comes to it. Throws ResourceError where there is no memory.
    CudaUploads(CudaMemory& memory, cudaStream_t main,
                std::size_t piece_bytes = std::size_t{8} << 20, std::size_t pieces = 8)
        : main_(main), piece_bytes_(piece_bytes), stream_(make_stream()) {
        for (std::size_t i = 0; i < pieces; ++i) pieces_.emplace_back(memory, main, piece_bytes);
    }
    CudaUploads(const CudaUploads&) = delete;
    CudaUploads& operator=(const CudaUploads&) = delete;
    ~CudaUploads() { ignored(cudaStreamSynchronize(stream_.get())); }

    /// In the main stream's order; `from` may change again when it returns.
    void upload(const void* from, void* to, std::size_t bytes) {
        const auto* source = static_cast<const std::byte*>(from);
        auto* target = static_cast<std::byte*>(to);
        for (std::size_t at = 0; at < bytes; at += piece_bytes_) {
            carry(pieces_[next_], source + at, target + at, std::min(piece_bytes_, bytes - at));
            next_ = (next_ + 1) % pieces_.size();
        }
    }

private:
    struct Piece {
        Piece(CudaMemory& memory, cudaStream_t main, std::size_t bytes)
            : on_gpu{memory.allocate(bytes), Releases{&memory}} {
            void* p = nullptr;
            check_cuda(cudaHostAlloc(&p, bytes, cudaHostAllocDefault),
                       "cudaHostAlloc of " + std::to_string(bytes) + " bytes");
            pinned.reset(static_cast<std::byte*>(p));
            check_cuda(cudaEventRecord(taken.get(), main), "cudaEventRecord");
        }
        struct Releases {
            CudaMemory* memory;
            void operator()(std::byte* p) const noexcept { memory->release(p); }
        };
        std::unique_ptr<std::byte, Destroys<cudaFreeHost>> pinned;
        std::unique_ptr<std::byte, Releases> on_gpu;
        OwnedEvent arrived = make_event();  // on the GPU, of its own stream
        OwnedEvent taken = make_event();    // and free again, of the main stream
    };

    void carry(Piece& p, const std::byte* from, std::byte* to, std::size_t bytes) {
        check_cuda(cudaEventSynchronize(p.taken.get()), "cudaEventSynchronize");
        std::memcpy(p.pinned.get(), from, bytes);
        copy(p.pinned.get(), p.on_gpu.get(), bytes, cudaMemcpyHostToDevice, stream_.get());
        check_cuda(cudaEventRecord(p.arrived.get(), stream_.get()), "cudaEventRecord");
        check_cuda(cudaStreamWaitEvent(main_, p.arrived.get(), 0), "cudaStreamWaitEvent");
        copy(p.on_gpu.get(), to, bytes, cudaMemcpyDeviceToDevice, main_);
        check_cuda(cudaEventRecord(p.taken.get(), main_), "cudaEventRecord");
    }
    static void copy(const void* from, void* to, std::size_t bytes, cudaMemcpyKind kind,
                     cudaStream_t stream) {
        check_cuda(cudaMemcpyAsync(to, from, bytes, kind, stream), "cudaMemcpyAsync");
    }

    cudaStream_t main_;
    std::size_t piece_bytes_, next_ = 0;
    std::vector<Piece> pieces_;
    OwnedStream stream_;
};

}  // namespace eyas::detail
