#pragma once
#include <cuda_runtime_api.h>

#include <memory>

#include "eyas/device/cuda_error.cuh"

namespace eyas {

/// How far a stream's work had come when this was made: an event, which copies share. Any thread.
class CudaMark {
public:
    /// `stream`: of the calling thread's GPU. Throws ResourceError.
    explicit CudaMark(cudaStream_t stream) : event_(detail::make_event()) {
        detail::check_cuda(cudaEventRecord(event_.get(), stream), "cudaEventRecord");
    }

    /// What the stream is given from now on begins after the work that is marked. Nobody waits.
    void hold_back(cudaStream_t stream) const {
        detail::check_cuda(cudaStreamWaitEvent(stream, event_.get(), 0), "cudaStreamWaitEvent");
    }
    /// Whether the work is done. Throws ResourceError where it failed.
    bool is_done() const {
        const auto status = cudaEventQuery(event_.get());
        if (status != cudaErrorNotReady) {
            detail::check_cuda(status, "cudaEventQuery");
            return true;
        }
        detail::ignored(status);  // no error, but it may be kept as the thread's last
        return false;
    }

private:
    std::shared_ptr<CUevent_st> event_;
};

}  // namespace eyas
