#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "eyas/core/error.hpp"

namespace eyas::detail {

/// A thread that does work in the order in which it is posted; it starts with the first. One thread
/// posts and waits. After work that throws, what follows is dropped until wait() has told of it.
class OrderedWork {
public:
    OrderedWork() = default;
    OrderedWork(const OrderedWork&) = delete;
    OrderedWork& operator=(const OrderedWork&) = delete;
    ~OrderedWork() {
        drop();
        {
            const std::lock_guard lock(mutex_);
            ended_ = true;
        }
        changed_.notify_all();
        if (thread_.joinable()) thread_.join();
    }

    /// Throws ResourceError where the system has no thread to give.
    void post(std::function<void()> work) {
        if (!thread_.joinable()) start();
        {
            const std::lock_guard lock(mutex_);
            if (!error_) work_.push_back(std::move(work));
        }
        changed_.notify_all();
    }

    /// Returns when all is done; throws what the first work that failed threw.
    void wait() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return work_.empty() && !busy_; });
        if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    }

    /// What has not begun is not done; returns when what has is.
    void drop() noexcept {
        std::unique_lock lock(mutex_);
        work_.clear();
        changed_.wait(lock, [this] { return !busy_; });
        error_ = nullptr;
    }

private:
    void start() {
        try {
            thread_ = std::thread([this] { run(); });
        } catch (const std::system_error& e) {
            throw ResourceError(std::string("no thread: ") + e.what(), "exchange of gradients",
                                "Raise the limit of processes and threads (ulimit -u)");
        }
    }

    void run() {
        std::unique_lock lock(mutex_);
        for (;;) {
            changed_.wait(lock, [this] { return ended_ || !work_.empty(); });
            if (ended_) return;
            const auto work = std::move(work_.front());
            work_.pop_front();
            busy_ = true;
            lock.unlock();
            std::exception_ptr error;
            try {
                work();
            } catch (...) {
                error = std::current_exception();
            }
            lock.lock();
            busy_ = false;
            if (error) {
                error_ = std::move(error);
                work_.clear();
            }
            changed_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> work_;
    bool busy_ = false, ended_ = false;
    std::exception_ptr error_;
    std::thread thread_;
};

}  // namespace eyas::detail
