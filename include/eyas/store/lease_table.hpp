#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "eyas/store/concept.hpp"

namespace eyas::detail {

/// Who holds which object in this process, and which objects are dead though their removal may
/// still have to be done. An object dies when its last lease goes, or while nobody holds it; nobody
/// gets hold of a dead one. Thread-safe.
class LeaseTable {
public:
    /// False where the object is dead.
    bool hold(const ObjectKey& key) {
        const std::lock_guard lock(mutex_);
        auto& e = entries_[key];
        if (e.dead) return false;
        ++e.leases;
        return true;
    }

    /// Drops one lease; `free` asks for the object's death once nobody holds it. True when that is
    /// now.
    bool drop(const ObjectKey& key, bool free) {
        const std::lock_guard lock(mutex_);
        const auto it = entries_.find(key);
        if (it == entries_.end()) return false;
        auto& e = it->second;
        e.free = e.free || free;
        if (--e.leases > 0) return false;
        if (e.free) return e.dead = true;
        entries_.erase(it);
        return false;
    }

    /// True where nobody held the object: it is dead from now on.
    bool kill(const ObjectKey& key) {
        const std::lock_guard lock(mutex_);
        auto& e = entries_[key];
        if (e.leases > 0 || e.dead) return false;
        return e.dead = true;
    }

    /// The removal of a dead object was done.
    void removed(const ObjectKey& key) {
        const std::lock_guard lock(mutex_);
        const auto it = entries_.find(key);  // two may have done it, and a third may hold it anew
        if (it != entries_.end() && it->second.dead) entries_.erase(it);
    }

    /// Whether somebody holds it, or its removal is still to be done.
    bool known(const ObjectKey& key) const {
        const std::lock_guard lock(mutex_);
        return entries_.contains(key);
    }
    std::uint64_t active() const {
        const std::lock_guard lock(mutex_);
        std::uint64_t n = 0;
        for (const auto& [unused, e] : entries_) n += e.leases;
        return n;
    }
    /// Whose removal is still to be done.
    std::vector<ObjectKey> dead() const {
        const std::lock_guard lock(mutex_);
        std::vector<ObjectKey> all;
        for (const auto& [key, e] : entries_)
            if (e.dead) all.push_back(key);
        return all;
    }

private:
    struct Entry {
        std::uint64_t leases = 0;
        bool free = false, dead = false;
    };

    mutable std::mutex mutex_;
    std::map<ObjectKey, Entry> entries_;
};

}  // namespace eyas::detail
