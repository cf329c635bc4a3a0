#pragma once
#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "eyas/loader/options.hpp"
#include "eyas/sample/stream_reader.hpp"

namespace eyas {

/// The refs of a manifest stream as far as they have come, for a loader that trains while they do.
/// Any thread; refs stay where they are as long as this lives.
class FollowedStream {
public:
    struct Options {
        std::chrono::milliseconds wait{0};             // for a new ref, at most; 0: for ever
        const std::atomic<bool>* interrupt = nullptr;  // ends waiting quietly (Ctrl-C)
    };

    FollowedStream(std::filesystem::path path, Options options)
        : options_(options), reader_(std::move(path)) {}
    explicit FollowedStream(std::filesystem::path path)
        : FollowedStream(std::move(path), Options{}) {}

    /// Waits until the producer has begun the stream; false when it was interrupted. Call it once,
    /// before anything else. Throws TransportError when `wait` passes first, DataError for a file
    /// that is no stream.
    bool open() {
        const std::lock_guard lock(reading_);
        std::vector<SampleRef> fresh;
        try {
            const bool begun =
                reader_.wait_for_header(fresh, options_.wait, [&] { return !interrupted(); });
            keep(fresh);
            return begun;
        } catch (...) {
            keep(fresh);
            throw;
        }
    }

    /// Throws ContractError before open().
    const StreamHeader& header() const {
        if (!reader_.header())
            throw ContractError("the stream was not opened", reader_.path().string(),
                                "Call open() first");
        return *reader_.header();
    }

    enum class Await { There, Finished, Interrupted, Stopped };

    /// Waits for the first `count` refs. There: they are; Finished: the stream ended with fewer;
    /// Interrupted by the options' flag; Stopped by `stop`. Throws TransportError when the producer
    /// failed or was silent for longer than `wait`, DataError for a bad line or a ref that is no
    /// EAGLE3 sample of the stream's width; both only when the refs before are not enough.
    Await await(std::size_t count, const std::atomic<bool>& stop) {
        for (;;) {
            if (size() >= count) return Await::There;
            if (stop) return Await::Stopped;
            const std::unique_lock lock(reading_, std::try_to_lock);  // one reads, for all
            if (!lock) {
                std::this_thread::sleep_for(interval);
                continue;
            }
            if (size() >= count) return Await::There;
            if (error_) std::rethrow_exception(error_);
            if (reader_.finished()) return Await::Finished;
            if (reader_.failure())
                throw TransportError("the producer failed: " + *reader_.failure(),
                                     reader_.path().string(),
                                     "Repair and start the producer again, then this trainer");
            if (!more(stop)) return stop ? Await::Stopped : Await::Interrupted;
        }
    }

    std::size_t size() const {
        const std::lock_guard lock(mutex_);
        return refs_.size();
    }
    const SampleRef& operator[](std::size_t i) const {
        const std::lock_guard lock(mutex_);
        return refs_.at(i);
    }

private:
    static constexpr std::chrono::milliseconds interval{10};  // between two looks at `stop`

    bool interrupted() const { return options_.interrupt && options_.interrupt->load(); }

    bool more(const std::atomic<bool>& stop) {
        std::vector<SampleRef> fresh;
        bool came = true;
        try {
            came = reader_.wait(fresh, options_.wait, [&] { return !stop && !interrupted(); });
        } catch (const DataError&) {
            error_ = std::current_exception();  // thrown when its turn comes
        } catch (...) {
            keep(fresh);  // the reader does not give them again
            throw;
        }
        keep(fresh);
        return came;
    }

    void keep(std::vector<SampleRef>& fresh) {
        for (auto& ref : fresh) {
            try {
                check_(ref);
            } catch (const DataError&) {
                error_ = std::current_exception();
                return;
            }
            const std::lock_guard lock(mutex_);
            refs_.push_back(std::move(ref));
        }
    }

    Options options_;
    std::mutex reading_;  // of what follows
    ManifestStreamReader reader_;
    detail::RefCheck check_;
    std::exception_ptr error_;
    mutable std::mutex mutex_;  // of refs_; taken after reading_
    std::deque<SampleRef> refs_;
};

}  // namespace eyas
