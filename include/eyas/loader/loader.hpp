#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "eyas/core/prefetch_ring.hpp"
#include "eyas/loader/batch_reader.hpp"
#include "eyas/loader/options.hpp"
#include "eyas/loader/order.hpp"
#include "eyas/loader/ring_memory.hpp"

namespace eyas {

/// Turns refs into batches: order of the reference's sampler, reads ahead on its own threads into a
/// fixed ring of prefetch + 1 batches, which is reused for the whole run and registered once with
/// the store's transport. The batches depend on manifest, options and position only, never on
/// timing, the number of threads or where the store is.
///
/// Threads: one thread (the consumer) calls all members; the loader's threads acquire and read
/// meanwhile, so the store must allow several at once, and must outlive the loader.
///
/// Ownership: a batch belongs to the loader and lives until the next call of next(), seek() or the
/// end of the loader. The samples of a batch stay leased while it lives. They are released
/// (consumed) by the call of next() that follows, when the caller is done with the batch; so with a
/// consume-once store nothing is freed that was not used. A batch that was read ahead, or that is
/// current when seek() or the destructor runs, is given back unconsumed. (With a consume-once store
/// use one epoch and a world that divides the number of samples, so that none is asked for twice.)
///
/// Failure: batches before a bad one are delivered; then next() throws what the store or the checks
/// threw, same type, with the sample's id in front, and again on every further call until seek().
/// The destructor waits for the batches that are being read, at most one a thread.
template <SampleSource S>
class Loader {
public:
    /// Copies the manifest. Throws ContractError for options that make no batch and DataError for
    /// refs that are not EAGLE3 samples of one width. No tensor is read yet.
    Loader(S& store, const Manifest& manifest, LoaderOptions options)
        : refs_(manifest.refs),
          options_(options),
          batches_(
              detail::checked_batches_per_epoch(static_cast<std::int64_t>(refs_.size()), options)),
          store_(store),
          ring_(static_cast<std::size_t>(options.prefetch) + 1) {
        detail::check_refs(manifest);
        memory_ = detail::make_ring(manifest, options_, ring_.size());
        if (!memory_.empty()) {
            for (std::size_t i = 0; i < ring_.size(); ++i)
                ring_.slot(i).batch.arena = BatchArena(memory_.slot(i));
            if constexpr (requires { store.register_region(memory_.bytes()); })
                registration_ = std::make_shared<decltype(store.register_region(memory_.bytes()))>(
                    store.register_region(memory_.bytes()));
        }
        for (std::int64_t i = 0; i < std::min(options_.threads, options_.prefetch + 1); ++i)
            readers_.push_back(std::make_unique<Reader>(store, options_.max_len));
    }
    Loader(const Loader&) = delete;
    Loader& operator=(const Loader&) = delete;
    ~Loader() { stop(); }

    /// Releases the last batch and returns the next; nullptr after the last epoch.
    const Batch* next() {
        consume_current();
        if (error_) std::rethrow_exception(error_);
        if (position_ == end()) return nullptr;
        const auto start = std::chrono::steady_clock::now();
        if (options_.prefetch == 0)
            read_now();
        else if (threads_.empty())
            start_threads();
        Slot* slot = current_ = &ring_.take();
        stall_ += std::chrono::steady_clock::now() - start;
        if (slot->error) {
            error_ = slot->error;
            std::rethrow_exception(error_);
        }
        position_ = after(position_);
        return &slot->batch.arena.batch();
    }

    /// The batch that next() returns next. Throws ContractError for a position outside the run.
    void seek(LoaderPosition to) {
        if (to.epoch < 0 || to.batch < 0 || to.batch > batches_ || to.epoch > options_.epochs ||
            (to.epoch == options_.epochs && to.batch > 0))
            throw ContractError(
                "epoch " + std::to_string(to.epoch) + ", batch " + std::to_string(to.batch) +
                    " of " + std::to_string(options_.epochs) + " epochs of " +
                    std::to_string(batches_) + " batches",
                "Loader::seek", "Resume with the manifest, batch size and epochs of that run");
        stop();
        position_ = to.batch == batches_ ? LoaderPosition{to.epoch + 1, 0} : to;
        error_ = nullptr;
    }

    LoaderPosition position() const { return position_; }
    std::int64_t batches_per_epoch() const { return batches_; }

    /// Seconds that next() waited for data, in all.
    double stall_seconds() const { return std::chrono::duration<double>(stall_).count(); }

private:
    struct Slot {
        detail::LeasedBatch<S> batch = {};
        std::exception_ptr error = {};
    };
    /// What one thread needs to fill a slot.
    struct Reader {
        Reader(S& store, std::int64_t max_len) : batch(store, max_len) {}
        detail::BatchReader<S> batch;
        std::vector<std::int64_t> order = {};  // of `epoch`
        std::int64_t epoch = -1;
        std::vector<const SampleRef*> chosen = {};
    };

    LoaderPosition end() const { return {options_.epochs, 0}; }
    LoaderPosition after(LoaderPosition p) const {
        return p.batch + 1 < batches_ ? LoaderPosition{p.epoch, p.batch + 1}
                                      : LoaderPosition{p.epoch + 1, 0};
    }

    // All leases are released even if one release fails; the first failure is thrown then.
    void consume_current() {
        if (!current_) return;
        std::exception_ptr failure;
        for (auto& lease : current_->batch.leases) {
            try {
                store_.release(std::move(lease));
            } catch (...) {
                if (!failure) failure = std::current_exception();
            }
        }
        current_->batch.leases.clear();
        current_ = nullptr;
        ring_.give_back();
        if (failure) std::rethrow_exception(failure);
    }

    void read_now() {
        const auto claim = ring_.claim();
        fill(position_, *readers_[0], *claim->slot);
        ring_.filled(claim->number);
    }

    void start_threads() {
        const auto first = position_.epoch * batches_ + position_.batch;
        for (auto& reader : readers_)
            threads_.emplace_back([this, first, &reader = *reader] { read_ahead(first, reader); });
    }

    // A loader's thread: fills slots in its turn until the end, an error or stop().
    void read_ahead(std::int64_t first, Reader& reader) {
        while (const auto claim = ring_.claim()) {
            const auto n = first + static_cast<std::int64_t>(claim->number);
            const LoaderPosition p{n / batches_, n % batches_};
            if (p >= end() || !fill(p, reader, *claim->slot)) return;
            const bool bad = claim->slot->error != nullptr;
            ring_.filled(claim->number);
            if (bad) return ring_.close();  // what follows is not asked for
        }
    }

    // False when stopped on the way; errors are kept in the slot.
    bool fill(LoaderPosition p, Reader& reader, Slot& slot) {
        slot.error = nullptr;
        try {
            if (reader.epoch != p.epoch) {
                reader.order =
                    epoch_order(static_cast<std::int64_t>(refs_.size()), options_.seed, p.epoch,
                                options_.rank, options_.world, options_.shuffle);
                reader.epoch = p.epoch;
            }
            const auto begin = static_cast<std::size_t>(p.batch * options_.batch_size);
            const auto size = std::min(static_cast<std::size_t>(options_.batch_size),
                                       reader.order.size() - begin);
            reader.chosen.clear();
            for (std::size_t i = begin; i < begin + size; ++i)
                reader.chosen.push_back(&refs_[static_cast<std::size_t>(reader.order[i])]);
            return reader.batch.read(reader.chosen, slot.batch, stopping_);
        } catch (...) {
            slot.batch.leases.clear();
            slot.error = std::current_exception();
            return true;
        }
    }

    // Ends the threads and gives every lease back unconsumed; afterwards all slots are free.
    void stop() {
        stopping_ = true;
        ring_.close();
        for (auto& t : threads_) t.join();
        threads_.clear();
        stopping_ = false;
        current_ = nullptr;
        for (std::size_t i = 0; i < ring_.size(); ++i) ring_.slot(i).batch.leases.clear();
        ring_.reset();
    }

    std::vector<SampleRef> refs_;
    LoaderOptions options_;
    std::int64_t batches_;
    S& store_;
    detail::RingMemory memory_;           // of the batches in ring_
    std::shared_ptr<void> registration_;  // of memory_, goes before it
    std::vector<std::unique_ptr<Reader>> readers_;
    detail::PrefetchRing<Slot> ring_;
    Slot* current_ = nullptr;
    LoaderPosition position_;
    std::exception_ptr error_;
    std::chrono::steady_clock::duration stall_{};
    std::atomic<bool> stopping_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace eyas
