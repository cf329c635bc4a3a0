#pragma once
#include <atomic>
#include <cstdint>
#include <string>

namespace eyas {

/// What a trainer does now, for a thread that watches it. enter() belongs to the trainer's thread;
/// seen() to any.
class Activity {
public:
    struct Seen {
        const char* stage = "";
        std::int64_t step = 0;      // that takes the place of "{}" in it
        std::uint64_t changes = 0;  // grows with every enter()

        std::string text() const {
            std::string words = stage;
            if (const auto at = words.find("{}"); at != words.npos)
                words.replace(at, 2, std::to_string(step));
            return words;
        }
    };

    /// `stage`: a literal, in words that follow "while"; "{}" in it stands for `step`.
    void enter(const char* stage, std::int64_t step = 0) noexcept {
        stage_.store(stage, std::memory_order_relaxed);
        step_.store(step, std::memory_order_relaxed);
        changes_.fetch_add(1, std::memory_order_release);
    }
    Seen seen() const noexcept {
        const auto changes = changes_.load(std::memory_order_acquire);
        return {stage_.load(std::memory_order_relaxed), step_.load(std::memory_order_relaxed),
                changes};
    }

private:
    std::atomic<const char*> stage_{"it was not started"};
    std::atomic<std::int64_t> step_{0};
    std::atomic<std::uint64_t> changes_{0};
};

}  // namespace eyas
