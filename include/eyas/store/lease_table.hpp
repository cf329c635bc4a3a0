#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <vector>

#include "eyas/store/concept.hpp"

namespace eyas::detail {

/// Who holds which object in this process, and which removals are still to be done. Thread-safe.
class LeaseTable {
public:
    void hold(const ObjectKey& key) {
        const std::lock_guard lock(mutex_);
        ++held_[key].leases;
    }

    /// Drops one lease; `free` asks for the object to be freed once nobody holds it. True when that
    /// is now.
    bool drop(const ObjectKey& key, bool free) {
        const std::lock_guard lock(mutex_);
        const auto it = held_.find(key);
        if (it == held_.end()) return false;
        it->second.free = it->second.free || free;
        if (--it->second.leases > 0) return false;
        const bool now = it->second.free;
        held_.erase(it);
        return now;
    }

    bool holds(const ObjectKey& key) const {
        const std::lock_guard lock(mutex_);
        return held_.contains(key);
    }
    std::uint64_t active() const {
        const std::lock_guard lock(mutex_);
        std::uint64_t n = 0;
        for (const auto& [unused, h] : held_) n += h.leases;
        return n;
    }

    /// An object that is dead from now on, though its removal may have to be tried again.
    void doom(const ObjectKey& key) {
        const std::lock_guard lock(mutex_);
        doomed_.insert(key);
    }
    void removed(const ObjectKey& key) {
        const std::lock_guard lock(mutex_);
        doomed_.erase(key);
    }
    bool is_doomed(const ObjectKey& key) const {
        const std::lock_guard lock(mutex_);
        return doomed_.contains(key);
    }
    std::vector<ObjectKey> doomed() const {
        const std::lock_guard lock(mutex_);
        return {doomed_.begin(), doomed_.end()};
    }

private:
    struct Held {
        std::uint64_t leases = 0;
        bool free = false;
    };

    mutable std::mutex mutex_;
    std::map<ObjectKey, Held> held_;
    std::set<ObjectKey> doomed_;
};

}  // namespace eyas::detail
