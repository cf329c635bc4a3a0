#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "eyas/device/guarded_memory.hpp"

namespace eyas::fake_cuda {

struct Work {
    const char* what;
    std::function<void()> run;
    std::function<bool()> ready = nullptr;  // whether it can be done; null: always
};

struct Graph;  // of graphs.cc

/// A stream's work. `done` of `queued` pieces have been done; who does them holds `working`.
struct Stream {
    int device = 0;
    std::recursive_mutex working;
    std::deque<Work> waiting;
    std::shared_ptr<Graph> capture;  // where its work goes instead; null: it does not capture
    std::uint64_t queued = 0, done = 0;
};

struct Event {
    std::shared_ptr<Stream> stream;  // of the last record; null before it
    std::uint64_t after = 0;         // pieces of work that it waits for
};

struct Allocation {
    std::size_t bytes = 0;
    int device = -1;         // -1: pinned memory of the host
    bool there = true,       // its stream has come to the allocation
        given_back = false;  // the release was called
    int copies = 0;          // of pinned memory, that have not been done
    bool of_graph = false;   // there while the graph is done
};

constexpr std::size_t most_poisoned = std::size_t{4} << 20;

/// Everything that the fake knows, behind one mutex, which is not held while work is done.
struct State {
    std::mutex mutex;
    int devices = 1;
    bool eager = false, backwards = false, no_algorithms = false;

    std::string planned;
    int planned_in = 0, planned_status = 0;
    bool planned_came = false;
    int fault = 0;  // of a kernel; stays
    std::map<std::string, int> calls;
    std::vector<std::string> failures;

    detail::GuardedMemory device_memory, pinned_memory;
    std::map<const std::byte*, Allocation> memory;
    std::map<const std::byte*, std::size_t> released;
    // Bytes, by GPU.
    std::map<int, std::uint64_t> in_use, most_in_use, most_of_graphs, reserved_of_graphs;
    std::deque<detail::GuardedMemory> graph_memory;  // one each: open between its nodes alone
    std::map<cudaStream_t, std::shared_ptr<Stream>> streams;
    std::map<cudaEvent_t, Event> events;
    std::map<const void*, std::string> handles;
    std::uintptr_t last_handle = 0;

    static State& get();
};

/// The current GPU of this thread, and what cudaGetLastError will return.
inline thread_local int current_device = 0;
inline thread_local cudaError_t last_error = cudaSuccess;

/// A handle that never was; with the lock.
template <class H>
H new_handle(State& s) {
    return reinterpret_cast<H>(s.last_handle += 16);
}

/// The allocation that a pointer lies in; null where there is none. With the lock.
std::pair<const std::byte*, Allocation*> find(State& s, const void* p);

/// Does a stream's work up to `until` pieces; unless `patient`, only to what cannot be done now.
void work_off(const std::shared_ptr<Stream>& stream, std::uint64_t until, bool patient = true);
std::shared_ptr<Stream> stream_of(cudaStream_t stream, const char* call);
void enqueue_on(const std::shared_ptr<Stream>& stream, const char* what,
                std::function<void()> work);

// Of graphs.cc.

bool captures(const std::shared_ptr<Stream>& stream);
/// Whether the stream captures, or with null this thread by any stream: what no capture holds,
/// which is told as misuse and spoils the stream's capture. The call returns `last_error` then.
bool refused_in_capture(const char* call, const std::shared_ptr<Stream>& stream);
/// Work, an allocation and a release of a stream that captures; add_node with the lock.
void add_node(const std::shared_ptr<Stream>& stream, Work work);
void* allocate_node(const std::shared_ptr<Stream>& stream, std::size_t bytes);
cudaError_t release_node(const std::shared_ptr<Stream>& stream, void* p, bool fails);

}  // namespace eyas::fake_cuda
