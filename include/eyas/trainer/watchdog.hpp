#pragma once
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "eyas/trainer/activity.hpp"

namespace eyas {

/// Tells when a trainer has been in one stage for longer than it should: a store that hangs, a rank
/// that is gone, a disk that does not answer. It only tells; what to do is for who hears it.
class Watchdog {
public:
    /// On the watchdog's thread; once each time that a stage lasts too long. It must not throw.
    using Report = std::function<void(const char* stage, std::chrono::milliseconds lasted)>;

    /// Watches until it is destroyed. `activity` must outlive it. A limit of 0: never.
    Watchdog(const Activity& activity, std::chrono::milliseconds limit, Report report)
        : activity_(activity), limit_(limit), report_(std::move(report)) {
        if (limit_.count() > 0) thread_ = std::thread([this] { watch(); });
    }
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;
    ~Watchdog() {
        {
            const std::lock_guard lock(mutex_);
            ended_ = true;
        }
        changed_.notify_all();
        if (thread_.joinable()) thread_.join();
    }

private:
    using Clock = std::chrono::steady_clock;

    void watch() {
        // A stage's length is known to a tenth of the limit.
        const auto pause =
            std::max<std::chrono::milliseconds>(limit_ / 10, std::chrono::milliseconds(1));
        auto last = activity_.seen();
        auto since = Clock::now();
        bool told = false;
        std::unique_lock lock(mutex_);
        while (!changed_.wait_for(lock, pause, [&] { return ended_; })) {
            const auto now = activity_.seen();
            if (now.changes != last.changes) {
                last = now;
                since = Clock::now();
                told = false;
            }
            const auto lasted =
                std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - since);
            if (told || lasted < limit_) continue;
            told = true;
            report_(last.text().c_str(), lasted);
        }
    }

    const Activity& activity_;
    std::chrono::milliseconds limit_;
    Report report_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool ended_ = false;
    std::thread thread_;
};

}  // namespace eyas
