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

#include "eyas/loader/batch_reader.hpp"
#include "eyas/loader/options.hpp"
#include "eyas/loader/order.hpp"
#include "eyas/loader/slot_queue.hpp"

namespace eyas {

/// Turns refs into batches: order of the reference's sampler, reads ahead on its own thread into a
/// fixed ring of prefetch + 1 arenas, which are reused for the whole run. The batches depend on
/// manifest, options and position only, never on timing or on where the store is.
///
/// Threads: one thread (the consumer) calls all members; the loader's thread acquires and reads
/// meanwhile, so the store must allow both at once, and must outlive the loader.
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
/// The destructor waits for at most one batch that is being read.
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
          reader_(store, options.max_len),
          store_(store),
          slots_(static_cast<std::size_t>(options.prefetch) + 1),
          free_(slots_.size()),
          ready_(slots_.size()) {
        detail::check_refs(manifest);
        for (auto& slot : slots_) free_.push(&slot);
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
        Slot* slot = options_.prefetch == 0 ? read_now() : wait_for_thread();
        stall_ += std::chrono::steady_clock::now() - start;
        current_ = slot;
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
        detail::LeasedBatch<S> batch;
        std::exception_ptr error;
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
        free_.push(std::exchange(current_, nullptr));
        if (failure) std::rethrow_exception(failure);
    }

    Slot* read_now() {
        Slot* slot = free_.pop();
        fill(position_, *slot);
        return slot;
    }

    Slot* wait_for_thread() {
        if (!thread_.joinable())
            thread_ = std::thread([this, from = position_] { read_ahead(from); });
        return ready_.pop();
    }

    // The loader's thread: fills free slots in order until the end, an error or stop().
    void read_ahead(LoaderPosition p) {
        for (bool good = true; good && p != end(); p = after(p)) {
            Slot* slot = free_.pop();
            if (!slot || !fill(p, *slot)) return;
            good = !slot->error;
            ready_.push(slot);
        }
    }

    // False when stopped on the way; errors are kept in the slot. The order belongs to whichever
    // thread reads; stop() joins before that changes.
    bool fill(LoaderPosition p, Slot& slot) {
        slot.error = nullptr;
        try {
            if (order_epoch_ != p.epoch) {
                order_ = epoch_order(static_cast<std::int64_t>(refs_.size()), options_.seed,
                                     p.epoch, options_.rank, options_.world, options_.shuffle);
                order_epoch_ = p.epoch;
            }
            const auto begin = static_cast<std::size_t>(p.batch * options_.batch_size);
            const auto size =
                std::min(static_cast<std::size_t>(options_.batch_size), order_.size() - begin);
            chosen_.clear();
            for (std::size_t i = begin; i < begin + size; ++i)
                chosen_.push_back(&refs_[static_cast<std::size_t>(order_[i])]);
            return reader_.read(chosen_, slot.batch, stopping_);
        } catch (...) {
            slot.batch.leases.clear();
            slot.error = std::current_exception();
            return true;
        }
    }

    // Ends the thread and gives every lease back unconsumed; afterwards all slots are free.
    void stop() {
        stopping_ = true;
        free_.close();
        if (thread_.joinable()) thread_.join();
        stopping_ = false;
        current_ = nullptr;
        free_.reset();
        ready_.reset();
        for (auto& slot : slots_) {
            slot.batch.leases.clear();
            free_.push(&slot);
        }
    }

    std::vector<SampleRef> refs_;
    LoaderOptions options_;
    std::int64_t batches_;
    detail::BatchReader<S> reader_;
    S& store_;
    std::vector<std::int64_t> order_;  // of order_epoch_
    std::int64_t order_epoch_ = -1;
    std::vector<const SampleRef*> chosen_;  // scratch of fill()

    std::vector<Slot> slots_;
    detail::SlotQueue<Slot> free_, ready_;
    Slot* current_ = nullptr;
    LoaderPosition position_;
    std::exception_ptr error_;
    std::chrono::steady_clock::duration stall_{};
    std::atomic<bool> stopping_ = false;
    std::thread thread_;
};

}  // namespace eyas
