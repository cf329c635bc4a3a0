// CUDA graphs: a stream's work that is captured instead of done, and launched as often as one
// likes; fake_cuda.hpp says what they do here.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>
#include <thread>
#include <utility>

#include "fake_cuda.hpp"
#include "state.hpp"

namespace eyas::fake_cuda {

/// Work in the order of its capture, and the memory that its allocations have each time it is done.
struct Graph {
    int device = 0;
    std::thread::id by;  // who captures
    bool invalid = false;
    std::vector<Work> nodes;
    std::map<std::byte*, detail::GuardedMemory*> memory;
    std::uint64_t in_use = 0, most_in_use = 0;  // bytes
    bool launched = false;                      // the GPU has memory for it
    std::atomic<int> queued = 0;                // launches that are not done

    Graph() = default;
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;
    ~Graph() {
        auto& s = State::get();
        const std::lock_guard lock(s.mutex);
        for (const auto& [p, pages] : memory) {
            pages->release(p);
            s.released[p] = s.memory[p].bytes;
            s.memory.erase(p);
        }
    }
};

/// One launch, until all of it is done.
struct Launch {
    std::shared_ptr<Graph> graph;

    explicit Launch(std::shared_ptr<Graph> g) : graph(std::move(g)) { ++graph->queued; }
    Launch(const Launch&) = delete;
    Launch& operator=(const Launch&) = delete;
    ~Launch() { --graph->queued; }
};

namespace {

constexpr const char *graph_kind = "cudaGraph", *exec_kind = "cudaGraphExec";

thread_local int captures_of_thread = 0;

/// Graphs by the handles of both kinds; with the lock.
std::map<const void*, std::shared_ptr<Graph>>& graphs() {
    static auto& all = *new std::map<const void*, std::shared_ptr<Graph>>;
    return all;
}

cudaError_t told(cudaError_t e) {
    if (e != cudaSuccess) last_error = e;
    return e;
}
cudaError_t refused(const char* call, const std::string& why,
                    cudaError_t e = cudaErrorInvalidValue) {
    misuse(std::string(call) + ": " + why);
    return told(e);
}

template <class H>
H add_graph(const char* kind, const std::shared_ptr<Graph>& graph) {
    auto& s = State::get();
    H handle{};
    {
        const std::lock_guard lock(s.mutex);
        handle = new_handle<H>(s);
        graphs()[handle] = graph;
    }
    add_handle(kind, handle);
    return handle;
}
std::shared_ptr<Graph> graph_of(const char* kind, const void* handle, const char* call) {
    if (!known_handle(kind, handle, call)) return nullptr;
    const std::lock_guard lock(State::get().mutex);
    return graphs().at(handle);
}
cudaError_t destroy(const char* kind, const void* handle, const char* call) {
    const auto planned = static_cast<cudaError_t>(enter(call));
    if (!remove_handle(kind, handle, call)) return told(cudaErrorInvalidValue);
    std::shared_ptr<Graph> last;  // may go after the lock
    {
        const std::lock_guard lock(State::get().mutex);
        last = std::move(graphs().at(handle));
        graphs().erase(handle);
    }
    if (last->queued > 0 && !last->memory.empty())
        misuse(std::string(call) + ": its memory is in use");
    return told(planned);
}

/// Ends a stream's capture, unless another thread began it; null where it has none.
std::shared_ptr<Graph> end(const std::shared_ptr<Stream>& stream) {
    const std::lock_guard lock(State::get().mutex);
    const auto made = stream->capture;
    if (made && made->by == std::this_thread::get_id()) stream->capture = nullptr;
    return made;
}

/// The first allocation that the graph does not release; null where there is none.
const Allocation* kept(const Graph& graph) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    for (const auto& [p, pages] : graph.memory)
        if (!s.memory[p].given_back) return &s.memory[p];
    return nullptr;
}

}  // namespace

bool captures(const std::shared_ptr<Stream>& stream) {
    const std::lock_guard lock(State::get().mutex);
    return stream->capture != nullptr;
}

bool refused_in_capture(const char* call, const std::shared_ptr<Stream>& stream) {
    auto& s = State::get();
    {
        const std::lock_guard lock(s.mutex);
        if (stream ? !stream->capture : captures_of_thread == 0) return false;
        if (stream) stream->capture->invalid = true;
    }
    misuse(std::string(call) + (stream ? ": of a stream that captures" : ": by who captures"));
    last_error = cudaErrorStreamCaptureUnsupported;
    return true;
}

void add_node(const std::shared_ptr<Stream>& stream, Work work) {
    auto& s = State::get();
    if (!work.ready) return stream->capture->nodes.push_back(std::move(work));
    s.failures.push_back(std::string(work.what) + ": of a stream that captures");
    stream->capture->invalid = true;
}

void* allocate_node(const std::shared_ptr<Stream>& stream, std::size_t bytes) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    auto& graph = *stream->capture;
    auto* pages = &s.graph_memory.emplace_back();
    std::byte* p = pages->allocate(bytes);
    graph.memory[p] = pages;
    s.memory[p] = {.bytes = bytes, .device = graph.device, .there = false, .of_graph = true};
    graph.in_use += bytes;
    graph.most_in_use = std::max(graph.most_in_use, graph.in_use);
    graph.nodes.push_back({"cudaMallocAsync", [&s, pages, p, bytes] {
                               pages->open();
                               if (bytes <= most_poisoned) std::memset(p, 0xff, bytes);
                               const std::lock_guard inner(s.mutex);
                               s.memory[p].there = true;
                           }});
    return p;
}

cudaError_t release_node(const std::shared_ptr<Stream>& stream, void* at, bool fails) {
    auto& s = State::get();
    auto* p = static_cast<std::byte*>(at);
    const char* why = nullptr;
    {
        const std::lock_guard lock(s.mutex);
        auto& graph = *stream->capture;
        const auto it = graph.memory.find(p);
        if (it == graph.memory.end())
            why = "memory that was not allocated in the capture", graph.invalid = true;
        else if (s.memory[p].given_back)
            why = "memory that was released";
        else if (s.memory[p].given_back = true; !fails) {
            graph.in_use -= s.memory[p].bytes;
            graph.nodes.push_back({"cudaFreeAsync", [&s, pages = it->second, p] {
                                       pages->close();
                                       const std::lock_guard inner(s.mutex);
                                       s.memory[p].there = false;
                                   }});
        }
    }
    return why ? refused("cudaFreeAsync", why) : cudaSuccess;
}

}  // namespace eyas::fake_cuda

using namespace eyas::fake_cuda;

#define EYAS_FAKE_ENTER(call)                                                               \
    if (const auto planned = static_cast<cudaError_t>(enter(call)); planned != cudaSuccess) \
    return told(planned)

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    EYAS_FAKE_ENTER("cudaStreamBeginCapture");
    const auto on = stream_of(stream, "cudaStreamBeginCapture");
    if (!on) return told(cudaErrorInvalidResourceHandle);
    if (refused_in_capture("cudaStreamBeginCapture", on)) return last_error;
    auto graph = std::make_shared<Graph>();
    graph->device = on->device, graph->by = std::this_thread::get_id();
    const std::lock_guard lock(State::get().mutex);
    on->capture = std::move(graph);
    ++captures_of_thread;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    const auto planned = static_cast<cudaError_t>(enter("cudaStreamEndCapture"));
    *graph = nullptr;
    const auto on = stream_of(stream, "cudaStreamEndCapture");
    if (!on) return told(cudaErrorInvalidResourceHandle);
    const auto made = end(on);  // also where it fails
    if (!made) return refused("cudaStreamEndCapture", "a capture that never began");
    if (made->by != std::this_thread::get_id())
        return refused("cudaStreamEndCapture", "another thread began the capture",
                       cudaErrorStreamCaptureWrongThread);
    --captures_of_thread;
    if (planned != cudaSuccess) return told(planned);
    if (made->invalid) return told(cudaErrorStreamCaptureInvalidated);
    *graph = add_graph<cudaGraph_t>(graph_kind, made);
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    EYAS_FAKE_ENTER("cudaGraphInstantiate");
    const auto of = graph_of(graph_kind, graph, "cudaGraphInstantiate");
    if (!of) return told(cudaErrorInvalidValue);
    if (const auto* left = kept(*of))
        return refused("cudaGraphInstantiate",
                       std::to_string(left->bytes) + " bytes that the graph does not release");
    *exec = add_graph<cudaGraphExec_t>(exec_kind, of);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    EYAS_FAKE_ENTER("cudaGraphLaunch");
    const auto on = stream_of(stream, "cudaGraphLaunch");
    const auto graph = graph_of(exec_kind, exec, "cudaGraphLaunch");
    if (!on || !graph) return told(cudaErrorInvalidValue);
    if (refused_in_capture("cudaGraphLaunch", on)) return last_error;
    if (on->device != graph->device)
        return refused("cudaGraphLaunch", "a stream of another GPU than the captured one's");
    {
        auto& s = State::get();
        const std::lock_guard lock(s.mutex);
        auto& most = s.most_of_graphs[graph->device];
        most = std::max(most, graph->most_in_use);
        if (!std::exchange(graph->launched, true))
            s.reserved_of_graphs[graph->device] += graph->most_in_use;
    }
    // Goes with the last node, also where a fault has ended all work.
    const auto launch = std::make_shared<Launch>(graph);
    for (const auto& node : graph->nodes)
        enqueue_on(on, node.what, [launch, &node] { node.run(); });
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    return destroy(exec_kind, exec, "cudaGraphExecDestroy");
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    return destroy(graph_kind, graph, "cudaGraphDestroy");
}

cudaError_t cudaDeviceGetGraphMemAttribute(int device, cudaGraphMemAttributeType name,
                                           void* value) {
    EYAS_FAKE_ENTER("cudaDeviceGetGraphMemAttribute");
    auto& s = State::get();
    const bool high = name == cudaGraphMemAttrUsedMemHigh;
    if (device < 0 || device >= s.devices || (!high && name != cudaGraphMemAttrReservedMemCurrent))
        return refused("cudaDeviceGetGraphMemAttribute",
                       "no such GPU, or an attribute that it does not know");
    const std::lock_guard lock(s.mutex);
    const auto bytes = (high ? s.most_of_graphs : s.reserved_of_graphs)[device];
    std::memcpy(value, &bytes, sizeof bytes);
    return cudaSuccess;
}

cudaError_t cudaDeviceGraphMemTrim(int device) {
    EYAS_FAKE_ENTER("cudaDeviceGraphMemTrim");
    auto& s = State::get();
    if (device < 0 || device >= s.devices) return refused("cudaDeviceGraphMemTrim", "no such GPU");
    const std::lock_guard lock(s.mutex);
    std::set<Graph*> at_work;  // a graph has two handles
    for (const auto& [handle, graph] : graphs())
        if (graph->device == device && (graph->launched = graph->queued > 0))
            at_work.insert(graph.get());
    auto& reserved = s.reserved_of_graphs[device] = 0;
    for (const auto* graph : at_work) reserved += graph->most_in_use;
    return cudaSuccess;
}

}  // extern "C"
