#pragma once
#include <cuda_runtime_api.h>

#include "eyas/device/cuda_error.cuh"

namespace eyas {

/// Work of a stream as a CUDA graph. Memory that is allocated and released in it is the graph's
/// own. It may go while the GPU still does it. One thread.
class CudaRecording {
public:
    /// The work that f() gives `stream`, none of which is done. Throws what f throws and
    /// ResourceErrors that name the call; the stream takes work as before then.
    template <class F>
    CudaRecording(cudaStream_t stream, const F& f) : graph_(captured(stream, f)) {
        cudaGraphExec_t work = nullptr;
        detail::check_cuda(cudaGraphInstantiate(&work, graph_.get(), 0), "cudaGraphInstantiate");
        work_.reset(work);
    }

    /// Queues the work. `stream`: of the same GPU.
    void launch(cudaStream_t stream) const {
        detail::check_cuda(cudaGraphLaunch(work_.get(), stream), "cudaGraphLaunch");
    }

private:
    using Graph = detail::Owned<cudaGraph_t, cudaGraphDestroy>;

    template <class F>
    static Graph captured(cudaStream_t stream, const F& f) {
        // Other threads may allocate and wait meanwhile; this one may not.
        detail::check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                           "cudaStreamBeginCapture");
        cudaGraph_t graph = nullptr;
        try {
            f();
        } catch (...) {
            detail::ignored(cudaStreamEndCapture(stream, &graph));
            const Graph given_up(graph);
            throw;
        }
        const auto status = cudaStreamEndCapture(stream, &graph);
        Graph owned(graph);
        detail::check_cuda(status, "cudaStreamEndCapture");
        return owned;
    }

    Graph graph_;  // keeps the addresses of its memory
    detail::Owned<cudaGraphExec_t, cudaGraphExecDestroy> work_;
};

}  // namespace eyas
