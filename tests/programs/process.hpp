#pragma once
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "eyas/core/file.hpp"

namespace eyas::test {

/// One of our programs as a child process; stdout and stderr go to files, so that no pipe fills.
class Process {
public:
    /// `command[0]` is a path; `environment` is added to this process's own.
    Process(const std::vector<std::string>& command, const std::filesystem::path& scratch,
            const std::map<std::string, std::string>& environment = {}) {
        static int number = 0;
        const auto base = scratch / ("process-" + std::to_string(++number));
        out_ = base.string() + ".out";
        err_ = base.string() + ".err";
        std::vector<char*> words;
        for (const auto& w : command) words.push_back(const_cast<char*>(w.c_str()));
        words.push_back(nullptr);
        pid_ = ::fork();
        if (pid_ < 0) throw std::runtime_error("fork failed");
        if (pid_ > 0) return;
        for (const auto& [name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
        const int o = ::open(out_.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
        const int e = ::open(err_.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
        if (o < 0 || e < 0 || ::dup2(o, 1) < 0 || ::dup2(e, 2) < 0) ::_exit(126);
        ::execv(words[0], words.data());
        ::_exit(127);
    }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    ~Process() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }

    void signal(int number) const { ::kill(pid_, number); }
    pid_t id() const { return pid_; }

    /// Until stdout holds `text`; throws when the process ends or a minute passes without it.
    void await(const std::string& text) {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
        while (output().find(text) == std::string::npos) {
            siginfo_t info{};
            ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT);
            if (info.si_pid != 0 || std::chrono::steady_clock::now() > deadline)
                throw std::runtime_error("never printed '" + text + "':\n" + output() + errors());
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    }

    /// Exit code, or minus the signal that ended it; throws when it does not end in four minutes.
    int wait() {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(4);
        int status = 0;
        while (::waitpid(pid_, &status, WNOHANG) == 0) {
            if (std::chrono::steady_clock::now() > deadline)
                throw std::runtime_error("does not end:\n" + output() + errors());
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        pid_ = 0;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }

    std::string output() const { return text_of(out_); }
    std::string errors() const { return text_of(err_); }
    /// The last line of stdout, without its end.
    std::string last_line() const {
        auto s = output();
        if (!s.empty() && s.back() == '\n') s.pop_back();
        return s.substr(s.rfind('\n') + 1);
    }

private:
    // The child may not have opened it yet.
    static std::string text_of(const std::filesystem::path& p) {
        return std::filesystem::exists(p) ? read_text_file(p) : "";
    }

    pid_t pid_ = 0;
    std::filesystem::path out_, err_;
};

}  // namespace eyas::test
