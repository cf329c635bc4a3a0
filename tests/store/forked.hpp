#pragma once
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <stdexcept>

namespace eyas::conformance {

/// Runs f in a process; what it ended with: 0 where f returned, 1 where it threw, -SIGNAL.
class Process {
public:
    explicit Process(const std::function<void()>& f) : pid_(::fork()) {
        if (pid_ != 0) return;
        int code = 1;
        try {
            f();
            code = 0;
        } catch (const std::exception& e) {
            std::fprintf(stderr, "process: %s\n", e.what());
        }
        ::_exit(code);
    }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    ~Process() {
        if (running_) kill();
    }
    int kill(int signal = SIGKILL) {
        ::kill(pid_, signal);
        if (signal == SIGSTOP || signal == SIGCONT) return 0;
        return wait();
    }
    int wait() {
        int status = 0;
        ::waitpid(pid_, &status, 0);
        running_ = false;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }
    pid_t id() const { return pid_; }

private:
    pid_t pid_;
    bool running_ = true;
};
inline int in_process(const std::function<void()>& f) { return Process(f).wait(); }

/// For processes other than the suite's, where REQUIRE has no meaning.
inline void demand(bool holds, const char* what) {
    if (!holds) throw std::runtime_error(what);
}

/// Waits until it holds; whether it came to hold within many seconds.
template <class F>
bool eventually(const F& holds) {
    for (int i = 0; i < 4000; ++i) {
        if (holds()) return true;
        ::usleep(5000);
    }
    return holds();
}

/// Entries of a directory of this process: "fd" for open files, "task" for threads.
inline std::size_t own(const char* what) {
    std::size_t n = 0;
    for (const auto& e : std::filesystem::directory_iterator(std::string("/proc/self/") + what))
        n += !e.path().empty();
    return n;
}

}  // namespace eyas::conformance
