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
#include "eyas/loader/ref_feed.hpp"
#include "eyas/loader/ring_memory.hpp"

namespace eyas {

/// Turns refs into batches: order of the reference's sampler, reads ahead on its own threads into a
/// fixed ring of prefetch + 1 batches, which is reused for the whole run and registered once with
/// the store's transport. The batches depend on manifest or stream, options and position only,
/// never on timing, the number of threads or where the store is.
///
/// Threads: one thread (the consumer) calls all members; the loader's threads acquire and read
/// meanwhile, so the store must allow several at once, and must outlive the loader.
///
/// Ownership: a batch belongs to the loader and lives until the next call of next(), acknowledge(),
/// seek() or the end of the loader. Its samples stay leased while it lives and are then given back
/// unconsumed. They are consumed by acknowledge(), which the caller makes when what it did with
/// them is safe (the trainer: when a checkpoint on disk contains it); so with a consume-once store
/// nothing is freed that a resumed run would ask for again, and nothing that was only read ahead.
/// Samples are consumed in the last epoch only. (With a consume-once store and a manifest use a
/// world that divides the number of samples, or of packed ones drop_last, so that none is asked for
/// twice.)
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
        : Loader(store, std::make_unique<detail::ManifestFeed>(manifest, options), manifest,
                 options) {}

    /// Follows a stream, which must outlive the loader: next() waits for refs. Batches lie in
    /// memory of their own where ring_bytes does not give a ring: the largest is not known. Throws
    /// ContractError for impossible options, shuffling and more than one epoch.
    Loader(S& store, FollowedStream& stream, LoaderOptions options)
        : Loader(store, std::make_unique<detail::StreamFeed>(stream, options), {}, options) {}

    Loader(const Loader&) = delete;
    Loader& operator=(const Loader&) = delete;
    ~Loader() { stop(); }

    /// Gives the last batch back and returns the next; nullptr after the last epoch or the end of
    /// the stream, and when waiting for refs was interrupted: interrupted() tells, and a further
    /// call waits again.
    const Batch* next() {
        give_back_current();
        interrupted_ = false;
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
        if (slot->feed != detail::Feed::Batch) {
            interrupted_ = slot->feed == detail::Feed::Interrupted;
            stop();
            return nullptr;
        }
        position_ = after(position_);
        return &slot->batch.arena.batch();
    }

    /// The batch that next() will return next, where it has been read, else nullptr.
    const Batch* ahead() {
        const Slot* s = position_ == end() ? nullptr : ring_.peek(current_ != nullptr);
        const bool read = s && !s->error && s->feed == detail::Feed::Batch;
        return read ? &s->batch.arena.batch() : nullptr;
    }

    /// Says that what was done with all batches before `to` is safe, in a checkpoint of optimizer
    /// step `step`: their samples are told to the options' sink and consumed, in the last epoch.
    /// Also after seek(), for what an earlier run did. Throws ContractError for batches that next()
    /// has not returned, and what the sink and the store throw; it can then be called again. (After
    /// seek() it may wait for the refs of a stream, and be interrupted; the next call catches up.)
    void acknowledge(LoaderPosition to, std::int64_t step) {
        if (to > position_)
            throw ContractError("batches that were not used", "Loader::acknowledge",
                                "Acknowledge at most what next() has returned");
        give_back_current();
        detail::BatchRefs chosen;
        std::vector<const SampleRef*> all;
        for (auto p = acknowledged_; p < to; p = after(p)) {
            const auto feed = feed_->choose(p, chosen, stopping_);
            if (feed == detail::Feed::Interrupted) return;
            if (feed != detail::Feed::Batch)
                throw DataError("the stream ends before batch " + std::to_string(p.batch) +
                                    ", which was trained",
                                "Loader::acknowledge", "Resume with the stream of that run");
            all.insert(all.end(), chosen.refs.begin(), chosen.refs.end());
        }
        detail::acknowledge_samples(store_, options_.acknowledgements, all, step);
        acknowledged_ = std::max(acknowledged_, to);
    }

    /// The batch that next() returns next. Throws ContractError for a position outside the run.
    void seek(LoaderPosition to) {
        const bool inside = to.epoch >= 0 && to.epoch < options_.epochs && to.batch >= 0;
        const auto batches = inside ? feed_->batches_in(to.epoch) : 0;
        const bool open = inside && batches == 0;  // only the end will tell
        if (to != end() && !open && (!inside || to.batch > batches))
            throw ContractError(
                "epoch " + std::to_string(to.epoch) + ", batch " + std::to_string(to.batch) +
                    " of " + std::to_string(options_.epochs) + " epochs of " +
                    std::to_string(batches_per_epoch()) + " batches",
                "Loader::seek", "Resume with the manifest, batch size and epochs of that run");
        stop();
        position_ = inside && !open && to.batch == batches ? LoaderPosition{to.epoch + 1, 0} : to;
        error_ = nullptr;
    }

    /// Whether the refs of the next `batches` batches are known to be there, so that next() waits
    /// for no producer. A stream's are when somebody has read so far: false proves nothing.
    bool at_hand(std::int64_t batches) const {
        return feed_->has({position_.epoch, position_.batch + batches - 1});
    }

    LoaderPosition position() const { return position_; }
    /// 0 for a stream: known at its end. Of packed samples in the first epoch: others may differ.
    std::int64_t batches_per_epoch() const { return batches_; }
    /// Of the first `epochs` epochs, 0 for a stream. Where samples are packed, it packs each one.
    std::int64_t batches_in_epochs(std::int64_t epochs) const {
        if (!options_.packed()) return batches_ * epochs;
        std::int64_t sum = 0;
        for (std::int64_t epoch = 0; epoch < epochs; ++epoch) sum += feed_->batches_in(epoch);
        return sum;
    }
    bool interrupted() const { return interrupted_; }

    /// Seconds that next() waited for data, in all.
    double stall_seconds() const { return std::chrono::duration<double>(stall_).count(); }

private:
    struct Slot {
        detail::LeasedBatch<S> batch = {};
        std::exception_ptr error = {};
        detail::Feed feed = {};  // Batch, or why there is none
    };
    /// What one thread needs to fill a slot.
    struct Reader {
        Reader(S& store, const LoaderOptions& options) : batch(store, options) {}
        detail::BatchReader<S> batch;
        detail::BatchRefs chosen = {};
    };
    /// Where the batch of a claim of the ring lies.
    struct Cursor {
        LoaderPosition position;
        std::uint64_t claim = 0;
    };

    // `manifest`: what the ring is made for.
    Loader(S& store, std::unique_ptr<detail::RefFeed> feed, const Manifest& manifest,
           LoaderOptions options)
        : feed_(std::move(feed)),
          options_(options),
          batches_(feed_->batches_in(0)),
          store_(store),
          memory_(detail::make_ring(manifest, options_,
                                    static_cast<std::size_t>(options.prefetch) + 1)),
          ring_(static_cast<std::size_t>(options.prefetch) + 1),
          acknowledged_{std::max<std::int64_t>(options.epochs - 1, 0), 0} {
        if (options_.states) {
            place_states(*options_.states);
        } else if (!memory_.empty()) {
            for (std::size_t i = 0; i < ring_.size(); ++i)
                ring_.slot(i).batch.arena = BatchArena(memory_.slot(i));
            if constexpr (requires { store.register_region(memory_.bytes()); })
                registration_ = std::make_shared<decltype(store.register_region(memory_.bytes()))>(
                    store.register_region(memory_.bytes()));
        }
        for (std::int64_t i = 0; i < std::min(options_.threads, options_.prefetch + 1); ++i)
            readers_.push_back(std::make_unique<Reader>(store, options_));
    }

    void place_states(DeviceRoom& room) {
        if constexpr (requires { store_.register_region(memory_.bytes(), room); }) {
            detail::check_states(store_, memory_);
            states_ = detail::StatesRing(memory_, room);
            for (std::size_t i = 0; i < ring_.size(); ++i)
                ring_.slot(i).batch.arena = BatchArena(memory_.slot(i), states_.slot(i), room);
            registration_ =
                std::make_shared<decltype(store_.register_region(memory_.bytes(), room))>(
                    store_.register_region(states_.bytes(), room));
        } else {
            throw ContractError("this store does not read into memory of a device",
                                "LoaderOptions::states", "Ask why_not_into() before");
        }
    }

    LoaderPosition end() const { return {options_.epochs, 0}; }
    LoaderPosition after(LoaderPosition p) const {
        const auto batches = feed_->batches_in(p.epoch);
        return p.batch + 1 < batches || batches == 0 ? LoaderPosition{p.epoch, p.batch + 1}
                                                     : LoaderPosition{p.epoch + 1, 0};
    }

    void give_back_current() {
        if (!current_) return;
        current_->batch.leases.clear();
        current_ = nullptr;
        ring_.give_back();
    }

    void read_now() {
        const auto claim = ring_.claim();
        Cursor cursor{position_, claim->number};
        fill(claim->number, cursor, *readers_[0], *claim->slot);
        ring_.filled(claim->number);
    }

    void start_threads() {
        for (auto& reader : readers_)
            threads_.emplace_back([this, first = position_, &reader = *reader] {
                read_ahead({first, 0}, reader);
            });
    }

    // A loader's thread: fills slots in its turn until the end, an error or stop().
    void read_ahead(Cursor cursor, Reader& reader) {
        while (const auto claim = ring_.claim()) {
            if (!fill(claim->number, cursor, reader, *claim->slot)) return;
            const bool last = claim->slot->error || claim->slot->feed != detail::Feed::Batch;
            ring_.filled(claim->number);
            if (last) return ring_.close();  // what follows is not asked for
        }
    }

    // Moves the cursor to the claim and fills the slot with what lies there. False past the end and
    // when stopped on the way; errors are kept in the slot.
    bool fill(std::uint64_t claim, Cursor& cursor, Reader& reader, Slot& slot) {
        slot.error = nullptr;
        try {
            for (; cursor.claim < claim && cursor.position < end(); ++cursor.claim)
                cursor.position = after(cursor.position);
            if (cursor.position >= end()) return false;
            slot.feed = feed_->choose(cursor.position, reader.chosen, stopping_);
            if (slot.feed != detail::Feed::Batch) return slot.feed != detail::Feed::Stopped;
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

    std::unique_ptr<detail::RefFeed> feed_;
    LoaderOptions options_;
    std::int64_t batches_;
    S& store_;
    detail::RingMemory memory_;           // of the batches in ring_
    detail::StatesRing states_;           // the same of a device, where states lie there
    std::shared_ptr<void> registration_;  // of what the store reads into, goes before it
    std::vector<std::unique_ptr<Reader>> readers_;
    detail::PrefetchRing<Slot> ring_;
    Slot* current_ = nullptr;
    LoaderPosition position_, acknowledged_;
    bool interrupted_ = false;
    std::exception_ptr error_;
    std::chrono::steady_clock::duration stall_{};
    std::atomic<bool> stopping_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace eyas
