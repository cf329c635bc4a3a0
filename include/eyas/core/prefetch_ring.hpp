#pragma once
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

namespace eyas::detail {

/// A fixed ring of slots that several threads fill and one consumer takes in order. Slot n holds
/// batch n, n + slots, …: a batch is claimed when the consumer has given the slot's last one back,
/// so no more than all slots are ever ahead, and who fills which batch does not change the order.
/// claim() and filled() belong to the filling threads, take(), peek() and give_back() to the
/// consumer, close() to anybody; reset() wants that nobody else uses the ring.
template <class Slot>
class PrefetchRing {
public:
    explicit PrefetchRing(std::size_t slots) : places_(slots) {}

    struct Claim {
        std::uint64_t number;  // of the batch, counted from the last reset()
        Slot* slot;
    };

    /// The next batch to be filled; waits for a slot. Nothing once closed.
    std::optional<Claim> claim() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return closed_ || claimed_ < given_back_ + places_.size(); });
        if (closed_) return std::nullopt;
        const auto n = claimed_++;
        return Claim{n, &place(n).slot};
    }

    void filled(std::uint64_t number) {
        {
            const std::lock_guard lock(mutex_);
            place(number).ready = true;
        }
        changed_.notify_all();
    }

    /// The next batch in order; waits until it was filled. One at a time: give_back() follows.
    Slot& take() {
        std::unique_lock lock(mutex_);
        auto& p = place(given_back_);
        changed_.wait(lock, [&] { return p.ready; });
        return p.slot;
    }

    /// The batch that follows the one `taken`, or the next where none is; nullptr while it is not
    /// filled. It is the consumer's to read until it takes it.
    Slot* peek(bool taken) {
        const std::lock_guard lock(mutex_);
        if (taken && places_.size() == 1) return nullptr;
        auto& p = place(given_back_ + taken);
        return p.ready ? &p.slot : nullptr;
    }

    void give_back() {
        {
            const std::lock_guard lock(mutex_);
            place(given_back_++).ready = false;
        }
        changed_.notify_all();
    }

    /// Ends claims: those that wait, and all to come.
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
        claimed_ = given_back_ = 0;
        closed_ = false;
        for (auto& p : places_) p.ready = false;
    }

    std::size_t size() const { return places_.size(); }
    Slot& slot(std::size_t i) { return places_[i].slot; }

private:
    struct Place {
        Slot slot = {};
        bool ready = false;
    };
    Place& place(std::uint64_t number) { return places_[number % places_.size()]; }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Place> places_;
    std::uint64_t claimed_ = 0, given_back_ = 0;
    bool closed_ = false;
};

}  // namespace eyas::detail
