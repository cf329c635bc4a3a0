#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "eyas/loader/followed_stream.hpp"
#include "eyas/loader/options.hpp"
#include "eyas/loader/order.hpp"

namespace eyas::detail {

/// What a loader gets when it asks for a batch's refs.
enum class Feed { Batch, End, Interrupted, Stopped };

/// Where a loader's refs come from, in which order. Any thread. Refs stay where they are.
class RefFeed {
public:
    virtual ~RefFeed() = default;
    /// The refs of the batch at p, all in `chosen`, when they are there. Ends waiting when `stop`
    /// is set.
    virtual Feed choose(LoaderPosition p, std::vector<const SampleRef*>& chosen,
                        const std::atomic<bool>& stop) = 0;
    /// Whether choose() of the batch at p, and of those before, would wait for nobody.
    virtual bool has(LoaderPosition p) const = 0;
    /// Of one rank; 0 where only the end will tell.
    virtual std::int64_t batches_per_epoch() const = 0;
};

/// The samples of a manifest, in the order of the reference's sampler.
class ManifestFeed final : public RefFeed {
public:
    /// Copies the manifest. Throws ContractError for options that make no batch, DataError for refs
    /// that are not EAGLE3 samples of one width.
    ManifestFeed(const Manifest& manifest, const LoaderOptions& options)
        : refs_(manifest.refs),
          options_(options),
          batches_(checked_batches_per_epoch(static_cast<std::int64_t>(refs_.size()), options)) {
        RefCheck check;
        for (const auto& ref : refs_) check(ref);
    }

    Feed choose(LoaderPosition p, std::vector<const SampleRef*>& chosen,
                const std::atomic<bool>&) override {
        if (p.epoch >= options_.epochs) return Feed::End;
        const std::lock_guard lock(mutex_);
        const auto& order = order_of(p.epoch);
        const auto begin = static_cast<std::size_t>(p.batch * options_.batch_size);
        const auto size =
            std::min(static_cast<std::size_t>(options_.batch_size), order.size() - begin);
        chosen.clear();
        for (std::size_t i = begin; i < begin + size; ++i)
            chosen.push_back(&refs_[static_cast<std::size_t>(order[i])]);
        return Feed::Batch;
    }

    bool has(LoaderPosition) const override { return true; }
    std::int64_t batches_per_epoch() const override { return batches_; }

private:
    struct EpochOrder {
        std::int64_t epoch = -1;
        std::vector<std::int64_t> order = {};
    };

    // Two are kept: threads that read ahead are in the next epoch when others are still in this.
    const std::vector<std::int64_t>& order_of(std::int64_t epoch) {
        auto& kept = kept_[static_cast<std::size_t>(epoch % 2)];
        if (kept.epoch != epoch)
            kept = {epoch, epoch_order(static_cast<std::int64_t>(refs_.size()), options_.seed,
                                       epoch, options_.rank, options_.world, options_.shuffle)};
        return kept.order;
    }

    std::vector<SampleRef> refs_;
    LoaderOptions options_;
    std::int64_t batches_;
    std::mutex mutex_;
    std::array<EpochOrder, 2> kept_;
};

/// The samples of a stream, in the order in which they come, once: rank r of R takes refs r, r + R,
/// r + 2R, … A batch is there when every rank's is, so all ranks get equally many; what is left
/// over at the end and does not go round is left out.
class StreamFeed final : public RefFeed {
public:
    /// The stream is borrowed. Throws ContractError for impossible options, for shuffling and for
    /// more than one epoch.
    StreamFeed(FollowedStream& stream, const LoaderOptions& options)
        : stream_(stream), options_(options) {
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

    Feed choose(LoaderPosition p, std::vector<const SampleRef*>& chosen,
                const std::atomic<bool>& stop) override {
        if (p.epoch > 0) return Feed::End;
        const auto world = options_.world;
        const auto first = p.batch * options_.batch_size;
        auto size = options_.batch_size;
        switch (stream_.await(refs_up_to(p), stop)) {
            case FollowedStream::Await::Stopped:
                return Feed::Stopped;
            case FollowedStream::Await::Interrupted:
                return Feed::Interrupted;
            case FollowedStream::Await::Finished:
                size = static_cast<std::int64_t>(stream_.size()) / world - first;
                if (size <= 0 || options_.drop_last) return Feed::End;
                break;
            case FollowedStream::Await::There:
                break;
        }
        chosen.clear();
        for (std::int64_t i = first; i < first + size; ++i)
            chosen.push_back(&stream_[static_cast<std::size_t>(i * world + options_.rank)]);
        return Feed::Batch;
    }

    bool has(LoaderPosition p) const override { return stream_.size() >= refs_up_to(p); }
    std::int64_t batches_per_epoch() const override { return 0; }

private:
    // Of all ranks, to the end of the batch at p.
    std::size_t refs_up_to(LoaderPosition p) const {
        return static_cast<std::size_t>((p.batch + 1) * options_.batch_size * options_.world);
    }

    FollowedStream& stream_;
    LoaderOptions options_;
};

}  // namespace eyas::detail
