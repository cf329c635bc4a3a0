#pragma once
#include <cuda_runtime_api.h>

#include <memory>

#include "eyas/device/cuda_error.cuh"

namespace eyas {

/// Work of a stream as a CUDA graph. Memory that is allocated and released in it is the graph's
/// own; the last launch is waited for before that goes. One thread.
class CudaRecording {
public:
    /// The work that f() gives `stream`, none of which is done. Throws what f throws and
    /// ResourceErrors that name the call; the stream takes work as before then.
    template <class F>
    CudaRecording(cudaStream_t stream, const F& f) : parts_(std::make_unique<Parts>()) {
        parts_->graph = captured(stream, f);
        cudaGraphExec_t work = nullptr;
        detail::check_cuda(cudaGraphInstantiate(&work, parts_->graph.get(), 0),
                           "cudaGraphInstantiate");
        parts_->work.reset(work);
    }

    /// Queues the work. `stream`: of the same GPU.
    void launch(cudaStream_t stream) const {
        detail::check_cuda(cudaGraphLaunch(parts_->work.get(), stream), "cudaGraphLaunch");
        detail::check_cuda(cudaEventRecord(parts_->launched.get(), stream), "cudaEventRecord");
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

    struct Parts {
        Graph graph;  // keeps the addresses of its memory
        detail::Owned<cudaGraphExec_t, cudaGraphExecDestroy> work;
        detail::OwnedEvent launched = detail::make_event();
        ~Parts() { detail::ignored(cudaEventSynchronize(launched.get())); }
    };
    std::unique_ptr<Parts> parts_;
};

}  // namespace eyas
