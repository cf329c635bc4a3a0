#pragma once
#include <atomic>
#include <cstdint>

namespace eyas {

/// What a trainer does now, for a thread that watches it. enter() belongs to the trainer's thread;
/// seen() to any.
class Activity {
public:
    struct Seen {
        const char* stage = "";
        std::uint64_t changes = 0;  // grows with every enter()
    };

    /// `stage`: a literal, in words that follow "while".
    void enter(const char* stage) noexcept {
        stage_.store(stage, std::memory_order_relaxed);
        changes_.fetch_add(1, std::memory_order_release);
    }
    Seen seen() const noexcept {
        const auto changes = changes_.load(std::memory_order_acquire);
        return {stage_.load(std::memory_order_relaxed), changes};
    }

private:
    std::atomic<const char*> stage_{"it was not started"};
    std::atomic<std::uint64_t> changes_{0};
};

}  // namespace eyas
