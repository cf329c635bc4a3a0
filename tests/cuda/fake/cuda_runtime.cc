// The functions of the CUDA runtime that eyas calls; fake_cuda.hpp says what they do here.
#include <cuda_runtime_api.h>

#include <cstring>

#include "eyas/device/cuda_launch.cuh"
#include "fake_cuda.hpp"
#include "state.hpp"

using namespace eyas::fake_cuda;

namespace {

/// What a function returns: the thread's last error until somebody asks for that.
cudaError_t told(cudaError_t e) {
    if (e != cudaSuccess) last_error = e;
    return e;
}

#define EYAS_FAKE_ENTER(call)                                                               \
    if (const auto planned = static_cast<cudaError_t>(enter(call)); planned != cudaSuccess) \
    return told(planned)

cudaError_t refused(const char* call, const char* why) {
    misuse(std::string(call) + ": " + why);
    return told(cudaErrorInvalidValue);
}

/// Memory that exists; of a stream: its work makes it usable.
void* allocate(std::size_t bytes, int device, const std::shared_ptr<Stream>& stream) {
    auto& s = State::get();
    std::byte* p = nullptr;
    {
        const std::lock_guard lock(s.mutex);
        p = (device < 0 ? s.pinned_memory : s.device_memory).allocate(bytes);
        s.memory[p] = {.bytes = bytes, .device = device, .there = !stream};
        if (device >= 0) {
            s.in_use[device] += bytes;
            s.most_in_use[device] = std::max(s.most_in_use[device], s.in_use[device]);
        }
    }
    if (stream)
        enqueue_on(stream, "cudaMallocAsync", [&s, p, bytes] {
            if (bytes <= most_poisoned) std::memset(p, 0xff, bytes);
            const std::lock_guard lock(s.mutex);
            s.memory[p].there = true;
        });
    return p;
}

void release(std::byte* p) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    const auto it = s.memory.find(p);
    if (it->second.device >= 0) s.in_use[it->second.device] -= it->second.bytes;
    (it->second.device < 0 ? s.pinned_memory : s.device_memory).release(p);
    s.released[p] = it->second.bytes;
    s.memory.erase(it);
}

/// Marks what a release names; false where it may not be released.
bool give_back(const char* call, void* p, bool pinned) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    const auto it = s.memory.find(static_cast<std::byte*>(p));
    const char* why = nullptr;
    if (it != s.memory.end() && it->second.of_graph)
        why = "memory of a graph";
    else if (it == s.memory.end())
        why = s.released.contains(static_cast<std::byte*>(p)) ? "memory that was released"
                                                              : "memory that was never allocated";
    else if ((it->second.device < 0) != pinned)
        why = "memory of another kind";
    else if (it->second.given_back)
        why = "memory that was released";
    else if (it->second.copies > 0 && s.fault == 0)
        why = "pinned memory under a copy";
    if (why) {
        s.failures.push_back(std::string(call) + ": " + why);
        return false;
    }
    it->second.given_back = true;
    return true;
}

/// A copy's end on the host: its pinned allocation, if it has one.
struct HostEnd {
    const std::byte* base = nullptr;

    HostEnd(const void* p) {
        auto& s = State::get();
        const std::lock_guard lock(s.mutex);
        const auto [at, a] = find(s, p);
        if (!a) return;
        base = at;
        ++a->copies;
    }
    void done() const {
        if (!base) return;
        auto& s = State::get();
        const std::lock_guard lock(s.mutex);
        --s.memory[base].copies;
    }
};

/// Tells misuse unless the range is the host's, and inside where it is pinned.
bool host_range(const char* call, const void* p, std::size_t bytes) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    const auto [at, a] = find(s, p);
    if (!a) return true;
    const char* why = nullptr;
    if (a->device >= 0)
        why = "device memory where the host's should be";
    else if (static_cast<const std::byte*>(p) + bytes > at + a->bytes)
        why = "beyond the end of pinned memory";
    if (why) s.failures.push_back(std::string(call) + ": " + why);
    return !why;
}

void upload(void* to, const void* from, std::size_t bytes, const std::shared_ptr<Stream>& stream) {
    const auto* first = static_cast<const std::byte*>(from);
    const HostEnd host(from);
    std::vector<std::byte> before(first, first + bytes);
    enqueue_on(stream, "cudaMemcpyAsync", [=, before = std::move(before)] {
        if (!device_range("cudaMemcpyAsync", to, bytes)) return;
        if (host.base && std::memcmp(from, before.data(), bytes) != 0)
            misuse("cudaMemcpyAsync: pinned memory changed before it was copied");
        std::memcpy(to, host.base ? from : before.data(), bytes);
        host.done();
    });
}

void download(void* to, const void* from, std::size_t bytes,
              const std::shared_ptr<Stream>& stream) {
    const HostEnd host(to);
    std::memset(to, 0xff, bytes);
    enqueue_on(stream, "cudaMemcpyAsync", [=] {
        if (device_range("cudaMemcpyAsync", from, bytes)) std::memcpy(to, from, bytes);
        host.done();
    });
}

cudaError_t wait_for(const std::shared_ptr<Stream>& stream, std::uint64_t until) {
    work_off(stream, until);
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    return static_cast<cudaError_t>(s.fault);
}

cudaError_t wait_for_all(const std::shared_ptr<Stream>& stream) {
    std::uint64_t until = 0;
    {
        const std::lock_guard lock(State::get().mutex);
        until = stream->queued;
    }
    return wait_for(stream, until);
}

/// The record that an event stands for now; false where there is no such event.
bool event_of(cudaEvent_t event, const char* call, Event& found) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    const auto it = s.events.find(event);
    if (it == s.events.end()) {
        s.failures.push_back(std::string(call) + ": an event that does not exist");
        return false;
    }
    found = it->second;
    return true;
}

void run_kernel(const std::function<void(bool)>& run) {
    auto& s = State::get();
    if (const int fault = enter("kernel"); fault != cudaSuccess) {
        const std::lock_guard lock(s.mutex);
        s.fault = fault;
        return;
    }
    run(s.backwards);
}

}  // namespace

void eyas::detail::launch_on_host(std::int64_t blocks, int threads, int most_threads,
                                  cudaStream_t stream, std::function<void(bool)> run) {
    const char* call = "kernel launch";
    if (last_error != cudaSuccess) misuse("kernel launch: an earlier call's error was not taken");
    if (const int planned = enter(call); planned != cudaSuccess) {
        last_error = static_cast<cudaError_t>(planned);
        return;
    }
    const auto on = stream_of(stream, call);
    if (!on || on->device != current_device) {
        if (on) misuse("kernel launch: a stream of another GPU than the current one");
        last_error = cudaErrorInvalidResourceHandle;
        return;
    }
    if (blocks < 1 || blocks > 0x7fffffff || threads < 32 || threads > most_threads ||
        threads % 32 != 0) {
        misuse("kernel launch: " + std::to_string(blocks) + " blocks of " +
               std::to_string(threads) + " threads");
        last_error = cudaErrorInvalidConfiguration;
        return;
    }
    enqueue_on(on, "a kernel", [run = std::move(run)] { run_kernel(run); });
}

extern "C" {

const char* cudaGetErrorName(cudaError_t e) {
    switch (e) {
        case cudaSuccess:
            return "cudaSuccess";
        case cudaErrorInvalidValue:
            return "cudaErrorInvalidValue";
        case cudaErrorMemoryAllocation:
            return "cudaErrorMemoryAllocation";
        case cudaErrorNoDevice:
            return "cudaErrorNoDevice";
        case cudaErrorIllegalAddress:
            return "cudaErrorIllegalAddress";
        case cudaErrorLaunchFailure:
            return "cudaErrorLaunchFailure";
        default:
            return "another CUDA error";
    }
}
const char* cudaGetErrorString(cudaError_t) { return "the fake's words for it"; }

cudaError_t cudaGetLastError() {
    const auto last = std::exchange(last_error, cudaSuccess);
    const auto planned = static_cast<cudaError_t>(enter("cudaGetLastError"));
    return planned == cudaSuccess ? last : planned;
}
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaGetDeviceCount(int* count) {
    EYAS_FAKE_ENTER("cudaGetDeviceCount");
    *count = State::get().devices;
    return told(*count == 0 ? cudaErrorNoDevice : cudaSuccess);
}
cudaError_t cudaSetDevice(int device) {
    EYAS_FAKE_ENTER("cudaSetDevice");
    if (device < 0 || device >= State::get().devices) return told(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
    EYAS_FAKE_ENTER("cudaGetDevice");
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    EYAS_FAKE_ENTER("cudaStreamCreateWithFlags");
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    *stream = new_handle<cudaStream_t>(s);
    s.streams[*stream] = std::make_shared<Stream>();
    s.streams[*stream]->device = current_device;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const auto planned = static_cast<cudaError_t>(enter("cudaStreamDestroy"));
    const auto on = stream_of(stream, "cudaStreamDestroy");
    if (!on) return told(cudaErrorInvalidResourceHandle);
    refused_in_capture("cudaStreamDestroy", on);
    if (planned == cudaSuccess) wait_for_all(on);  // destroyed when its work is done
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    s.streams.erase(stream);
    return told(planned);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const auto planned = static_cast<cudaError_t>(enter("cudaStreamSynchronize"));
    const auto on = stream_of(stream, "cudaStreamSynchronize");
    if (!on) return told(cudaErrorInvalidResourceHandle);
    if (refused_in_capture("cudaStreamSynchronize", on)) return last_error;
    const auto came = wait_for_all(on);  // also where it tells of a failure
    return told(planned == cudaSuccess ? came : planned);
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    EYAS_FAKE_ENTER("cudaStreamQuery");
    const auto on = stream_of(stream, "cudaStreamQuery");
    if (!on) return told(cudaErrorInvalidResourceHandle);
    if (refused_in_capture("cudaStreamQuery", on)) return last_error;
    auto& s = State::get();
    std::uint64_t until = 0;
    {
        const std::lock_guard lock(s.mutex);
        if (on->done == on->queued) return cudaSuccess;
        until = on->queued;
    }
    work_off(on, until, false);      // who asks often enough sees it end
    return told(cudaErrorNotReady);  // the strictest reading of what CUDA says
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    EYAS_FAKE_ENTER("cudaStreamWaitEvent");
    const auto on = stream_of(stream, "cudaStreamWaitEvent");
    Event e;
    if (!on || !event_of(event, "cudaStreamWaitEvent", e))
        return told(cudaErrorInvalidResourceHandle);
    if (refused_in_capture("cudaStreamWaitEvent", on)) return last_error;
    if (!e.stream) return refused("cudaStreamWaitEvent", "an event that was never recorded");
    const auto has_come = [e] {
        work_off(e.stream, e.after, false);
        const std::lock_guard lock(State::get().mutex);
        return e.stream->done >= e.after;
    };
    enqueue_when(stream, "cudaStreamWaitEvent", has_come, [] {});
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    EYAS_FAKE_ENTER("cudaEventCreateWithFlags");
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    *event = new_handle<cudaEvent_t>(s);
    s.events[*event] = {};
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const auto planned = static_cast<cudaError_t>(enter("cudaEventDestroy"));
    Event e;
    if (!event_of(event, "cudaEventDestroy", e)) return told(cudaErrorInvalidResourceHandle);
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    s.events.erase(event);
    return told(planned);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    EYAS_FAKE_ENTER("cudaEventRecord");
    const auto on = stream_of(stream, "cudaEventRecord");
    Event e;
    if (!on || !event_of(event, "cudaEventRecord", e)) return told(cudaErrorInvalidResourceHandle);
    if (refused_in_capture("cudaEventRecord", on)) return last_error;
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    s.events[event] = {on, on->queued};
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const auto planned = static_cast<cudaError_t>(enter("cudaEventSynchronize"));
    Event e;
    if (!event_of(event, "cudaEventSynchronize", e)) return told(cudaErrorInvalidResourceHandle);
    if (refused_in_capture("cudaEventSynchronize", nullptr)) return last_error;
    const auto came = e.stream ? wait_for(e.stream, e.after) : cudaSuccess;
    return told(planned == cudaSuccess ? came : planned);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    EYAS_FAKE_ENTER("cudaEventQuery");
    Event e;
    if (!event_of(event, "cudaEventQuery", e)) return told(cudaErrorInvalidResourceHandle);
    if (refused_in_capture("cudaEventQuery", nullptr)) return last_error;
    auto& s = State::get();
    {
        const std::lock_guard lock(s.mutex);
        if (!e.stream || e.stream->done >= e.after) return cudaSuccess;
    }
    work_off(e.stream, e.after, false);  // who asks often enough sees it end
    return told(cudaErrorNotReady);      // the strictest reading of what CUDA says
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
    EYAS_FAKE_ENTER("cudaDeviceGetDefaultMemPool");
    if (device < 0 || device >= State::get().devices) return told(cudaErrorInvalidDevice);
    *pool = reinterpret_cast<cudaMemPool_t>(static_cast<std::uintptr_t>(device) + 1);
    return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr, void*) {
    EYAS_FAKE_ENTER("cudaMemPoolSetAttribute");
    return pool ? cudaSuccess : refused("cudaMemPoolSetAttribute", "no pool");
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr name, void* value) {
    EYAS_FAKE_ENTER("cudaMemPoolGetAttribute");
    if (!pool || name != cudaMemPoolAttrUsedMemHigh)
        return refused("cudaMemPoolGetAttribute", "no pool, or an attribute that it does not know");
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    const auto most = s.most_in_use[static_cast<int>(reinterpret_cast<std::uintptr_t>(pool)) - 1];
    std::memcpy(value, &most, sizeof most);
    return cudaSuccess;
}
cudaError_t cudaMallocAsync(void** p, std::size_t bytes, cudaStream_t stream) {
    EYAS_FAKE_ENTER("cudaMallocAsync");
    const auto on = stream_of(stream, "cudaMallocAsync");
    if (!on || bytes == 0) return refused("cudaMallocAsync", "no stream, or no bytes");
    *p = captures(on) ? allocate_node(on, bytes) : allocate(bytes, on->device, on);
    return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
    const auto planned = static_cast<cudaError_t>(enter("cudaFreeAsync"));
    const auto on = stream_of(stream, "cudaFreeAsync");
    if (on && captures(on)) {
        const auto status = release_node(on, p, planned != cudaSuccess);
        return planned == cudaSuccess ? status : told(planned);
    }
    if (!on || !give_back("cudaFreeAsync", p, false)) return told(cudaErrorInvalidValue);
    if (planned == cudaSuccess)
        enqueue_on(on, "cudaFreeAsync", [p] { release(static_cast<std::byte*>(p)); });
    return told(planned);
}
cudaError_t cudaMalloc(void** p, std::size_t bytes) {
    EYAS_FAKE_ENTER("cudaMalloc");
    if (refused_in_capture("cudaMalloc", nullptr)) return last_error;
    if (bytes == 0) return refused("cudaMalloc", "no bytes");
    *p = allocate(bytes, current_device, nullptr);
    return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
    const auto planned = static_cast<cudaError_t>(enter("cudaFree"));
    if (!give_back("cudaFree", p, false)) return told(cudaErrorInvalidValue);
    release(static_cast<std::byte*>(p));
    return told(planned);
}
cudaError_t cudaHostAlloc(void** p, std::size_t bytes, unsigned) {
    EYAS_FAKE_ENTER("cudaHostAlloc");
    if (refused_in_capture("cudaHostAlloc", nullptr)) return last_error;
    *p = allocate(bytes, -1, nullptr);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
    const auto planned = static_cast<cudaError_t>(enter("cudaFreeHost"));
    if (!give_back("cudaFreeHost", p, true)) return told(cudaErrorInvalidValue);
    release(static_cast<std::byte*>(p));
    return told(planned);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* of, const void* p) {
    EYAS_FAKE_ENTER("cudaPointerGetAttributes");
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    const auto [base, a] = find(s, p);
    *of = {};
    of->type = !a              ? cudaMemoryTypeUnregistered
               : a->device < 0 ? cudaMemoryTypeHost
                               : cudaMemoryTypeDevice;
    of->device = a && a->device >= 0 ? a->device : 0;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    EYAS_FAKE_ENTER("cudaMemcpyAsync");
    const auto on = stream_of(stream, "cudaMemcpyAsync");
    if (!on) return told(cudaErrorInvalidResourceHandle);
    if (kind != cudaMemcpyDeviceToDevice && refused_in_capture("cudaMemcpyAsync with the host", on))
        return last_error;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice,
               to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    if ((from_device && !device_range("cudaMemcpyAsync", from, bytes)) ||
        (to_device && !device_range("cudaMemcpyAsync", to, bytes)) ||
        (!from_device && !host_range("cudaMemcpyAsync", from, bytes)) ||
        (!to_device && !host_range("cudaMemcpyAsync", to, bytes)))
        return told(cudaErrorInvalidValue);
    if (kind == cudaMemcpyHostToDevice)
        upload(to, from, bytes, on);
    else if (kind == cudaMemcpyDeviceToHost)
        download(to, from, bytes, on);
    else if (kind == cudaMemcpyDeviceToDevice)
        enqueue_on(on, "cudaMemcpyAsync", [=] {
            if (device_range("cudaMemcpyAsync", from, bytes) &&
                device_range("cudaMemcpyAsync", to, bytes))
                std::memcpy(to, from, bytes);
        });
    else
        return refused("cudaMemcpyAsync", "a kind of copy that it does not know");
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
    EYAS_FAKE_ENTER("cudaMemsetAsync");
    const auto on = stream_of(stream, "cudaMemsetAsync");
    if (!on || !device_range("cudaMemsetAsync", to, bytes)) return told(cudaErrorInvalidValue);
    enqueue_on(on, "cudaMemsetAsync", [=] {
        if (device_range("cudaMemsetAsync", to, bytes)) std::memset(to, value, bytes);
    });
    return cudaSuccess;
}

}  // extern "C"
