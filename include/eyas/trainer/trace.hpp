#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "eyas/core/file.hpp"
#include "eyas/core/json.hpp"
#include "eyas/core/span.hpp"

namespace eyas {

/// Writes what a trainer does, and when, as a Chrome trace (chrome://tracing, Perfetto): a list of
/// begin and end events in the order in which they happened, with the rank as process, and as
/// threads the one that drives the trainer, the one that exchanges with other ranks and the one
/// that writes checkpoints. What is written before a process is killed can be read, too: the
/// format's closing bracket may be missing.
///
/// Any thread. A disk that refuses ends the recording and not the training; close() tells of it.
class TraceRecorder final : public SpanListener {
public:
    /// Creates the file, over an older one. Throws ResourceError, or DataError where the directory
    /// does not exist.
    TraceRecorder(std::filesystem::path path, int rank)
        : path_(std::move(path)),
          rank_(rank),
          fd_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
        if (!fd_) detail::throw_errno("cannot create", path_);
        label("process_name", Lane::Trainer, "rank " + std::to_string(rank));
        label("thread_name", Lane::Trainer, "trainer");
        label("thread_name", Lane::Exchange, "exchange between ranks");
        label("thread_name", Lane::Writer, "checkpoint writer");
    }
    ~TraceRecorder() override {
        try {
            close();
        } catch (const ResourceError&) {  // who wants to know calls close()
        }
    }

    void begin(Lane lane, const char* name, std::int64_t number) noexcept override {
        event('B', lane, name, number);
    }
    void end(Lane lane, const char* name, std::int64_t number) noexcept override {
        event('E', lane, name, number);
    }

    /// The last events are written and nothing is recorded any more. Throws ResourceError where the
    /// disk refused something.
    void close() {
        const std::lock_guard lock(mutex_);
        if (!fd_) return;
        text_ += "\n]\n";
        write();
        fd_ = detail::Fd();
        if (!error_.empty())
            throw ResourceError("the trace is incomplete: " + error_, path_.string(),
                                "Free some space and run it again");
    }

private:
    using Clock = std::chrono::steady_clock;  // of the machine: its ranks agree about it
    static constexpr std::size_t buffered = std::size_t{1} << 16;

    void event(char phase, Lane lane, const char* name, std::int64_t number) noexcept {
        const std::lock_guard lock(mutex_);
        if (!fd_ || !error_.empty()) return;
        const auto now =
            std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch());
        try {
            add({{"name", number < 0 ? std::string(name) : name + (" " + std::to_string(number))},
                 {"ph", std::string(1, phase)},
                 {"ts", static_cast<double>(now.count()) / 1e3},  // microseconds
                 {"pid", rank_},
                 {"tid", static_cast<int>(lane)}});
        } catch (const std::bad_alloc&) {
            error_ = "no memory";
        }
        if (text_.size() >= buffered) write();
    }

    void label(const char* what, Lane lane, const std::string& text) {
        const std::lock_guard lock(mutex_);
        add({{"name", what},
             {"ph", "M"},
             {"pid", rank_},
             {"tid", static_cast<int>(lane)},
             {"args", {{"name", text}}}});
    }

    void add(const OrderedJson& event) {
        text_ += begun_ ? ",\n" : "[\n";
        text_ += event.dump();
        begun_ = true;
    }

    void write() noexcept {
        for (std::size_t at = 0; at < text_.size() && error_.empty();) {
            const auto n = ::write(fd_.get(), text_.data() + at, text_.size() - at);
            if (n < 0 && errno != EINTR) error_ = std::strerror(errno);
            if (n > 0) at += static_cast<std::size_t>(n);
        }
        text_.clear();
    }

    std::filesystem::path path_;
    int rank_;
    std::mutex mutex_;  // guards what follows
    detail::Fd fd_;
    bool begun_ = false;
    std::string text_, error_;
};

}  // namespace eyas
