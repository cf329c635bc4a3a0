#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "eyas/core/error.hpp"
#include "eyas/store/concept.hpp"

namespace eyas::detail {

/// Room for puts that are under way: each counts from when it was allowed until it is stored or has
/// failed, so that puts at once do not pass the quota together. Thread-safe; of one instance of a
/// store, others that share its place count what is stored.
class Quota {
    using Coming = std::multimap<std::string, std::uint64_t>;

public:
    explicit Quota(std::optional<std::uint64_t> bytes) : bytes_(bytes) {}

    /// A put's room, given back when it goes. The quota must outlive it.
    class Room {
    public:
        Room() = default;
        Room(Quota& quota, Coming::iterator entry) : quota_(&quota), entry_(entry) {}
        Room(Room&& o) noexcept : quota_(std::exchange(o.quota_, nullptr)), entry_(o.entry_) {}
        Room& operator=(Room&&) = delete;
        ~Room() {
            if (!quota_) return;
            const std::lock_guard lock(quota_->mutex_);
            quota_->coming_.erase(entry_);
        }

    private:
        Quota* quota_ = nullptr;
        Coming::iterator entry_ = {};
    };

    /// Throws ResourceError where `bytes` of a sample, in place of what it has, pass the quota.
    template <StoreBackend B>
    [[nodiscard]] Room require(B& backend, const std::string& sample, std::uint64_t bytes) {
        if (!bytes_) return {};
        const std::lock_guard lock(mutex_);
        const auto used = used_beside(backend, sample);
        if (used + bytes > *bytes_)
            throw ResourceError(
                std::to_string(bytes) + " bytes would pass the quota of " +
                    std::to_string(*bytes_) + " (" + std::to_string(used) + " are in use)",
                "sample '" + sample + "'",
                "Let trainers consume samples, collect old ones, or raise the quota");
        return {*this, coming_.emplace(sample, bytes)};
    }

private:
    // A sample that is being put counts once, as the larger of what is stored and what comes.
    template <StoreBackend B>
    std::uint64_t used_beside(B& backend, const std::string& sample) const {
        std::map<std::string, std::uint64_t> more;
        for (const auto& [other, bytes] : coming_)
            if (other != sample) more[other] = std::max(more[other], bytes);
        std::uint64_t used = 0;
        for (const auto& o : backend.objects()) {
            if (o.key.sample == sample) continue;
            used += o.bytes;
            if (const auto it = more.find(o.key.sample); it != more.end())
                it->second -= std::min(it->second, o.bytes);
        }
        for (const auto& [unused, bytes] : more) used += bytes;
        return used;
    }

    std::optional<std::uint64_t> bytes_;
    std::mutex mutex_;
    Coming coming_;  // bytes of puts under way, by sample
};

}  // namespace eyas::detail
