#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "eyas/core/prefetch_ring.hpp"
#include "eyas/ingest/check_ahead.hpp"
#include "eyas/ingest/prototype.hpp"

namespace eyas::detail {

/// What became of one file: its ref, or the error for which it was left out.
struct PutOutcome {
    std::optional<SampleRef> ref = {};
    std::uint64_t bytes = 0;
    std::exception_ptr error = {};
    std::string message = {};  // the error's
    bool bad = false;          // the file is no valid sample; else the store refused it
};

/// Puts feature files into a store from several threads; who calls gets the outcomes in the files'
/// order. A file is put only when all before it were found good (or may be left out), so a bad file
/// has nothing behind it in the store; behind a put that the store refused there may be as many
/// samples as other threads were putting just then. One thread takes; the list, options and store
/// must outlive it.
template <class Sink>
class PutAhead {
public:
    PutAhead(Sink& store, const std::vector<std::filesystem::path>& files,
             const IngestOptions& options)
        : store_(store), files_(files), options_(options), checked_(files, options) {
        for (std::size_t i = 0; i < threads(options); ++i)
            workers_.emplace_back([this] { work(); });
    }
    PutAhead(const PutAhead&) = delete;
    PutAhead& operator=(const PutAhead&) = delete;
    ~PutAhead() {
        ring_.close();
        for (auto& w : workers_) w.join();
    }

    /// Of the next file. To be called until an error that ends the ingest, or once a file.
    PutOutcome next() {
        auto outcome = std::exchange(ring_.take(), PutOutcome());
        ring_.give_back();
        return outcome;
    }

private:
    struct Job {
        std::size_t index;
        PutOutcome* outcome;
        std::optional<CheckedSample> sample;  // nothing when the file is bad
    };

    static std::size_t threads(const IngestOptions& o) {
        return static_cast<std::size_t>(std::max<std::int64_t>(o.put_threads, 1));
    }

    void work() {
        while (auto job = next_job()) {
            if (job->sample) put(*job);
            ring_.filled(job->index);
        }
    }

    // One thread at a time, so that files are judged in their order.
    std::optional<Job> next_job() {
        const std::lock_guard lock(mutex_);
        if (ended_) return std::nullopt;
        const auto claim = ring_.claim();
        if (!claim || claim->number >= files_.size()) return std::nullopt;
        Job job{static_cast<std::size_t>(claim->number), claim->slot, {}};
        try {
            job.sample = checked_.next();
            if (first_) check_same_width(job.sample->layout, *first_, files_[job.index].string());
            first_ = job.sample->layout;
        } catch (const Error& e) {
            fail(job, true);
            job.outcome->message = e.what();
            ended_ = !options_.skip_bad;
        } catch (...) {
            fail(job, false);
            ended_ = true;
        }
        return job;
    }

    static void fail(Job& job, bool bad) {
        job.sample.reset();
        job.outcome->error = std::current_exception();
        job.outcome->bad = bad;
    }

    void put(Job& job) {
        try {
            job.outcome->ref =
                put_or_adopt(store_, ref_prototype(options_, job.index, job.sample->layout.rows),
                             *job.sample, options_.link);
            job.outcome->bytes = bytes_of(*job.sample);
        } catch (...) {
            fail(job, false);
            const std::lock_guard lock(mutex_);
            ended_ = true;
        }
    }

    Sink& store_;
    const std::vector<std::filesystem::path>& files_;
    const IngestOptions& options_;
    CheckAhead checked_;
    PrefetchRing<PutOutcome> ring_{threads(options_) + 1};
    std::mutex mutex_;
    std::optional<FeatureLayout> first_;
    bool ended_ = false;
    std::vector<std::thread> workers_;  // last: they start when the rest is there
};

}  // namespace eyas::detail
