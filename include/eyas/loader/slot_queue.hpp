#pragma once
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

namespace eyas::detail {

/// Hands pointers to a fixed set of slots from one thread to another, first in, first out. Never
/// holds more than `capacity`, so a push never waits or allocates; pop waits until there is one or
/// the queue is closed. All members may be called from any thread, except reset(), which wants that
/// nobody else uses the queue. Owns no slot.
template <class T>
class SlotQueue {
public:
    explicit SlotQueue(std::size_t capacity) : ring_(capacity) {}

    void push(T* slot) {
        {
            const std::lock_guard lock(mutex_);
            ring_[(first_ + count_++) % ring_.size()] = slot;
        }
        changed_.notify_one();
    }

    /// nullptr once closed.
    T* pop() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return closed_ || count_ > 0; });
        if (closed_) return nullptr;
        T* slot = ring_[first_];
        first_ = (first_ + 1) % ring_.size();
        --count_;
        return slot;
    }

    void close() {
        {
            const std::lock_guard lock(mutex_);
            closed_ = true;
        }
        changed_.notify_all();
    }

    /// Empty and open again.
    void reset() {
        const std::lock_guard lock(mutex_);
        first_ = count_ = 0;
        closed_ = false;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<T*> ring_;
    std::size_t first_ = 0, count_ = 0;
    bool closed_ = false;
};

}  // namespace eyas::detail
