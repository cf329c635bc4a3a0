#pragma once
#include <exception>
#include <filesystem>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "eyas/core/prefetch_ring.hpp"
#include "eyas/ingest/checked_sample.hpp"

namespace eyas::detail {

/// Opens and checks feature files in their order, on a thread of its own that stays a few ahead of
/// who takes them: while one file is written into a store, the next is read. One thread takes; the
/// files' list and options must outlive it.
class CheckAhead {
public:
    CheckAhead(const std::vector<std::filesystem::path>& files, const IngestOptions& options)
        : files_(files), options_(options), thread_([this] { check(); }) {}
    CheckAhead(const CheckAhead&) = delete;
    CheckAhead& operator=(const CheckAhead&) = delete;
    ~CheckAhead() {
        ring_.close();
        thread_.join();
    }

    /// The next file, or its error, thrown here. To be called as often as there are files.
    CheckedSample next() {
        auto slot = std::exchange(ring_.take(), Slot());
        ring_.give_back();
        if (slot.error) std::rethrow_exception(slot.error);
        return std::move(*slot.sample);
    }

private:
    struct Slot {
        std::optional<CheckedSample> sample = {};
        std::exception_ptr error = {};
    };

    void check() {
        while (const auto claim = ring_.claim()) {
            if (claim->number >= files_.size()) return;
            try {
                claim->slot->sample = open_checked(files_[claim->number], options_);
            } catch (...) {
                claim->slot->error = std::current_exception();
            }
            ring_.filled(claim->number);
        }
    }

    static constexpr std::size_t most_ahead = 2;

    const std::vector<std::filesystem::path>& files_;
    const IngestOptions& options_;
    PrefetchRing<Slot> ring_{most_ahead};
    std::thread thread_;  // last: starts when the rest is there
};

}  // namespace eyas::detail
