#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <string>
#include <vector>

#include "eyas/loader/followed_stream.hpp"
#include "eyas/loader/options.hpp"
#include "eyas/loader/order.hpp"
#include "eyas/loader/sample_rows.hpp"

namespace eyas::detail {

/// What a loader gets when it asks for a batch's refs.
enum class Feed { Batch, End, Interrupted, Stopped };

/// Where a loader's refs come from, in which order. Any thread. Refs stay where they are.
class RefFeed {
public:
    virtual ~RefFeed() = default;
    /// The refs of the batch at p, all in `chosen`, when they are there. Ends waiting when `stop`
    /// is set.
    virtual Feed choose(LoaderPosition p, BatchRefs& chosen, const std::atomic<bool>& stop) = 0;
    /// Whether choose() of the batch at p, and of those before, would wait for nobody.
    virtual bool has(LoaderPosition p) = 0;
    /// Batches of one rank in an epoch, at least 1; 0 where only the end will tell.
    virtual std::int64_t batches_in(std::int64_t epoch) = 0;
};

/// The samples of a manifest, in the order of the reference's sampler. Packed rows are made of an
/// epoch's whole order; rank r of R takes rows r, r + R, …, and all get equally many: what does not
/// go round is left out where the last batch may be, else the first rows come twice.
class ManifestFeed final : public RefFeed {
public:
    /// Copies the manifest. Throws ContractError for options that make no batch, DataError for refs
    /// that are not EAGLE3 samples of one width, or whose length packing does not know.
    ManifestFeed(const Manifest& manifest, const LoaderOptions& options)
        : refs_(manifest.refs), options_(options) {
        check_loader_options(options);
        RefCheck check;
        for (const auto& ref : refs_) {
            check(ref);
            if (options.packed()) lengths_.push_back(packed_length(ref, options));
        }
        const auto samples = static_cast<std::int64_t>(refs_.size());
        if (!options.packed())
            batches_ = checked_batches((samples + options.world - 1) / options.world, options);
    }

    Feed choose(LoaderPosition p, BatchRefs& chosen, const std::atomic<bool>&) override {
        if (p.epoch >= options_.epochs) return Feed::End;
        const std::lock_guard lock(mutex_);
        const auto& rows = rows_of(p.epoch);
        const auto begin = static_cast<std::size_t>(p.batch * options_.batch_size);
        const auto size =
            std::min(static_cast<std::size_t>(options_.batch_size), rows.size() - begin);
        chosen.clear();
        for (std::size_t i = 0; i < size; ++i)
            for (const auto sample : rows[begin + i]) {
                chosen.refs.push_back(&refs_[static_cast<std::size_t>(sample)]);
                chosen.rows.push_back(static_cast<std::int64_t>(i));
            }
        return Feed::Batch;
    }

    bool has(LoaderPosition) override { return true; }
    std::int64_t batches_in(std::int64_t epoch) override {
        if (!options_.packed()) return batches_;
        const std::lock_guard lock(mutex_);
        return checked_batches(static_cast<std::int64_t>(rows_of(epoch).size()), options_);
    }

private:
    struct EpochRows {
        std::int64_t epoch = -1;
        SampleRows rows = {};  // of this rank
    };

    // Two are kept: threads that read ahead are in the next epoch when others are still in this.
    const SampleRows& rows_of(std::int64_t epoch) {
        auto& kept = kept_[static_cast<std::size_t>(epoch % 2)];
        if (kept.epoch != epoch)
            kept = {epoch, options_.packed() ? packed_rows(epoch) : single_rows(epoch)};
        return kept.rows;
    }

    std::vector<std::int64_t> order(std::int64_t epoch, std::int64_t rank,
                                    std::int64_t world) const {
        return epoch_order(static_cast<std::int64_t>(refs_.size()), options_.seed, epoch, rank,
                           world, options_.shuffle);
    }

    SampleRows single_rows(std::int64_t epoch) const {
        SampleRows rows;
        for (const auto sample : order(epoch, options_.rank, options_.world))
            rows.push_back({&sample, 1});
        return rows;
    }

    SampleRows packed_rows(std::int64_t epoch) const {
        RowPacker packer(options_.pack_tokens);
        for (const auto sample : order(epoch, 0, 1))
            packer.add(sample, lengths_[static_cast<std::size_t>(sample)]);
        packer.finish();
        const auto& all = packer.closed();
        const auto count = static_cast<std::int64_t>(all.size()), world = options_.world;
        SampleRows mine;
        const auto round = options_.drop_last ? world : 1;  // rows that must be there
        for (std::int64_t i = 0; i + round <= count; i += world)
            mine.push_back(all[static_cast<std::size_t>((i + options_.rank) % count)]);
        checked_batches(static_cast<std::int64_t>(mine.size()), options_);
        return mine;
    }

    std::vector<SampleRef> refs_;
    LoaderOptions options_;
    std::vector<std::int64_t> lengths_;  // of packed samples
    std::int64_t batches_ = 0;           // where they are not packed: of every epoch
    std::mutex mutex_;
    std::array<EpochRows, 2> kept_;
};

/// The samples of a stream, in the order in which they come, once: rank r of R takes rows r, r + R,
/// r + 2R, …, each a sample or packed. A batch is there when every rank's is, so all ranks get
/// equally many; what is left over at the end and does not go round is left out.
class StreamFeed final : public RefFeed {
public:
    /// The stream is borrowed. Throws ContractError for impossible options, for shuffling and for
    /// more than one epoch.
    StreamFeed(FollowedStream& stream, const LoaderOptions& options)
        : stream_(stream), options_(options), packer_(options.pack_tokens) {
        check_loader_options(options);
        if (options.shuffle || options.epochs != 1)
            throw ContractError(
                options.shuffle
                    ? "a stream cannot be shuffled: its refs come one by one"
                    : "a stream is trained once, not " + std::to_string(options.epochs) + " epochs",
                "LoaderOptions",
                "Use shuffle = false and one epoch, or wait for the end of the stream and train "
                "on it as a manifest");
    }

    Feed choose(LoaderPosition p, BatchRefs& chosen, const std::atomic<bool>& stop) override {
        if (p.epoch > 0) return Feed::End;
        const auto world = options_.world;
        const auto first = p.batch * options_.batch_size;
        auto size = options_.batch_size;
        switch (await_rows(rows_up_to(p), stop)) {
            case FollowedStream::Await::Stopped:
                return Feed::Stopped;
            case FollowedStream::Await::Interrupted:
                return Feed::Interrupted;
            case FollowedStream::Await::Finished:
                size = static_cast<std::int64_t>(rows()) / world - first;
                if (size <= 0 || options_.drop_last) return Feed::End;
                break;
            case FollowedStream::Await::There:
                break;
        }
        chosen.clear();
        for (std::int64_t i = 0; i < size; ++i)
            add_row(static_cast<std::size_t>((first + i) * world + options_.rank), i, chosen);
        return Feed::Batch;
    }

    bool has(LoaderPosition p) override {
        if (!options_.packed()) return stream_.size() >= rows_up_to(p);
        const std::lock_guard lock(mutex_);
        pack_what_came();
        return packer_.closed().size() >= rows_up_to(p);
    }
    std::int64_t batches_in(std::int64_t) override { return 0; }

private:
    // Of all ranks, to the end of the batch at p.
    std::size_t rows_up_to(LoaderPosition p) const {
        return static_cast<std::size_t>((p.batch + 1) * options_.batch_size * options_.world);
    }

    /// As FollowedStream::await, of rows. Errors are thrown when the rows before are not enough.
    FollowedStream::Await await_rows(std::size_t count, const std::atomic<bool>& stop) {
        if (!options_.packed()) return stream_.await(count, stop);
        for (;;) {
            std::size_t samples = 0;
            {
                const std::lock_guard lock(mutex_);
                pack_what_came();
                if (packer_.closed().size() >= count) return FollowedStream::Await::There;
                if (error_) std::rethrow_exception(error_);
                if (finished_) return FollowedStream::Await::Finished;
                samples = packed_;
            }
            const auto came = stream_.await(samples + 1, stop);
            if (came == FollowedStream::Await::There) continue;
            if (came != FollowedStream::Await::Finished) return came;
            const std::lock_guard lock(mutex_);
            pack_what_came();
            if (!finished_ && !error_) packer_.finish();
            finished_ = true;
        }
    }

    void pack_what_came() {
        for (const auto end = stream_.size(); packed_ < end && !error_; ++packed_) try {
                packer_.add(static_cast<std::int64_t>(packed_),
                            packed_length(stream_[packed_], options_));
            } catch (const DataError&) {
                error_ = std::current_exception();  // thrown when its turn comes
            }
    }

    std::size_t rows() const {
        if (!options_.packed()) return stream_.size();
        const std::lock_guard lock(mutex_);
        return packer_.closed().size();
    }

    void add_row(std::size_t row, std::int64_t place, BatchRefs& chosen) const {
        const auto add = [&](std::size_t sample) {
            chosen.refs.push_back(&stream_[sample]);
            chosen.rows.push_back(place);
        };
        if (!options_.packed()) return add(row);
        const std::lock_guard lock(mutex_);
        for (const auto sample : packer_.closed()[row]) add(static_cast<std::size_t>(sample));
    }

    FollowedStream& stream_;
    LoaderOptions options_;
    mutable std::mutex mutex_;  // of what follows, which only packing needs
    RowPacker packer_;
    std::size_t packed_ = 0;  // samples of the stream that are in rows
    std::exception_ptr error_;
    bool finished_ = false;
};

}  // namespace eyas::detail
