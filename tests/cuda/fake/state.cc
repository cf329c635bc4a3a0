#include "state.hpp"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "fake_cuda.hpp"

namespace eyas::fake_cuda {

namespace {

thread_local const char* now_working = nullptr;

/// Says whose address it was, then ends as without this handler.
void tell_fault(int signal, siginfo_t* info, void*) {
    char text[256];
    const int n = std::snprintf(text, sizeof text, "fake CUDA: %s touched %p, which is not its\n",
                                now_working ? now_working : "the host", info->si_addr);
    if (n > 0) [[maybe_unused]]
        const auto written = ::write(2, text, static_cast<std::size_t>(n));
    ::signal(signal, SIG_DFL);
    ::raise(signal);
}

/// Before main: a test's own handler comes on top and hands over to this one.
[[maybe_unused]] const State& from_the_start = State::get();

void check_at_exit() {
    const auto told = failures(), left = alive();
    for (const auto& f : told) std::fprintf(stderr, "fake CUDA: %s\n", f.c_str());
    for (const auto& a : left) std::fprintf(stderr, "fake CUDA: never released: %s\n", a.c_str());
    if (!told.empty() || !left.empty()) ::_exit(1);
}

}  // namespace

State& State::get() {
    static State& state = *[] {
        auto* s = new State;
        s->pinned_memory.open();
        struct sigaction action {};
        action.sa_sigaction = tell_fault;
        action.sa_flags = SA_SIGINFO;
        ::sigaction(SIGSEGV, &action, nullptr);
        std::atexit(check_at_exit);
        return s;
    }();
    return state;
}

void devices(int count) { State::get().devices = count; }
void eager(bool yes) { State::get().eager = yes; }
void backwards(bool yes) { State::get().backwards = yes; }
void no_algorithms(bool yes) { State::get().no_algorithms = yes; }

void fail(const std::string& call, int nth, int status) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    s.planned = call, s.planned_in = nth, s.planned_status = status, s.planned_came = false;
}
bool failed() { return State::get().planned_came; }
void reset() {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    s.planned.clear(), s.planned_in = 0, s.planned_came = false, s.fault = 0;
    s.calls.clear();
    last_error = cudaSuccess;
}
int calls(const std::string& call) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    const auto it = s.calls.find(call);
    return it == s.calls.end() ? 0 : it->second;
}
std::vector<std::string> called() {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    std::vector<std::string> names;
    for (const auto& [name, n] : s.calls) names.push_back(name);
    return names;
}

std::vector<std::string> failures() {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    return std::exchange(s.failures, {});
}
std::vector<std::string> alive() {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    std::vector<std::string> left;
    for (const auto& [p, a] : s.memory)
        if (!a.given_back)
            left.push_back(std::to_string(a.bytes) + " bytes of " +
                           (a.device < 0 ? "pinned" : "device") + " memory");
    for (const auto& [handle, stream] : s.streams)
        left.push_back(stream->capture ? "a stream that captures" : "a stream");
    for (std::size_t i = 0; i < s.events.size(); ++i) left.push_back("an event");
    for (const auto& [p, kind] : s.handles) left.push_back("a " + kind);
    return left;
}

int enter(const char* call) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    ++s.calls[call];
    if (s.planned_in > 0 && s.planned == call && --s.planned_in == 0) {
        s.planned_came = true;
        return s.planned_status;
    }
    return s.fault;
}

void misuse(const std::string& what) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    s.failures.push_back(what);
}

std::pair<const std::byte*, Allocation*> find(State& s, const void* p) {
    auto it = s.memory.upper_bound(static_cast<const std::byte*>(p));
    if (it == s.memory.begin()) return {nullptr, nullptr};
    --it;
    // The bytes up to the closed page belong to what is before them.
    if (static_cast<const std::byte*>(p) > it->first + it->second.bytes) return {nullptr, nullptr};
    return {it->first, &it->second};
}

bool device_range(const char* of, const void* p, std::size_t bytes) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    const auto [base, a] = find(s, p);
    const auto say = [&](const char* why) {
        s.failures.push_back(std::string(of) + ": " + std::to_string(bytes) + " bytes " + why);
        return false;
    };
    if (!a || a->device < 0) {
        auto it = s.released.upper_bound(static_cast<const std::byte*>(p));
        if (it != s.released.begin() &&
            static_cast<const std::byte*>(p) < std::prev(it)->first + std::prev(it)->second)
            return say("of memory that was released");
        return say("outside of device memory");
    }
    const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(p) - base);
    if (offset + bytes > a->bytes) return say("beyond the end of device memory");
    if (!now_working && a->given_back) return say("of memory that was released");
    if (now_working && !a->there)
        return say("of memory whose stream has not come to its allocation");
    return true;
}

std::shared_ptr<Stream> stream_of(cudaStream_t stream, const char* call) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    const auto it = s.streams.find(stream);
    if (it == s.streams.end()) {
        s.failures.push_back(std::string(call) + ": a stream that does not exist");
        return nullptr;
    }
    return it->second;
}

namespace {
void add_work(const std::shared_ptr<Stream>& stream, Work work) {
    auto& s = State::get();
    std::uint64_t until = 0;
    bool at_once = false;
    {
        const std::lock_guard lock(s.mutex);
        if (stream->capture) return add_node(stream, std::move(work));
        stream->waiting.push_back(std::move(work));
        until = ++stream->queued;
        at_once = s.eager;
    }
    if (at_once) work_off(stream, until, false);
}
}  // namespace

void enqueue_on(const std::shared_ptr<Stream>& stream, const char* what,
                std::function<void()> work) {
    add_work(stream, {what, std::move(work)});
}

void enqueue(cudaStream_t stream, const char* what, std::function<void()> work) {
    if (const auto s = stream_of(stream, what)) enqueue_on(s, what, std::move(work));
}
void enqueue_when(cudaStream_t stream, const char* what, std::function<bool()> ready,
                  std::function<void()> work) {
    if (const auto s = stream_of(stream, what))
        add_work(s, {what, std::move(work), std::move(ready)});
}

void work_off(const std::shared_ptr<Stream>& stream, std::uint64_t until, bool patient) {
    auto& s = State::get();
    {
        const std::lock_guard lock(s.mutex);
        if (stream->done >= until) return;
    }
    const std::lock_guard turn(stream->working);
    const char* outer = now_working;
    bool open = false;
    const auto open_memory = [&](bool yes) {
        if (yes && !open) s.device_memory.open();
        if (!yes && open) s.device_memory.close();
        open = yes;
    };
    std::unique_lock lock(s.mutex);
    while (stream->done < until && !stream->waiting.empty()) {
        auto work = std::move(stream->waiting.front());
        stream->waiting.pop_front();
        const bool faulty = s.fault != 0;  // afterwards a GPU does nothing any more
        lock.unlock();
        const bool ready = faulty || !work.ready || work.ready();
        open_memory(ready);
        now_working = work.what;
        if (!ready) std::this_thread::yield();
        if (ready && !faulty) work.run();
        now_working = outer;
        if (ready) work = {};  // a graph's memory may go with it
        lock.lock();
        if (ready)
            ++stream->done;
        else
            stream->waiting.push_front(std::move(work));
        if (!ready && !patient) break;
    }
    open_memory(false);
}

void add_handle(const char* kind, const void* handle) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    s.handles[handle] = kind;
}
bool known_handle(const char* kind, const void* handle, const char* call) {
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    const auto it = s.handles.find(handle);
    if (it != s.handles.end() && it->second == kind) return true;
    s.failures.push_back(std::string(call) + ": a " + kind + " that does not exist");
    return false;
}
bool remove_handle(const char* kind, const void* handle, const char* call) {
    if (!known_handle(kind, handle, call)) return false;
    auto& s = State::get();
    const std::lock_guard lock(s.mutex);
    s.handles.erase(handle);
    return true;
}

}  // namespace eyas::fake_cuda
