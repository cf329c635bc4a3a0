#pragma once
#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <future>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "eyas/checkpoint/checkpoint.hpp"
#include "eyas/checkpoint/snapshot.hpp"
#include "eyas/collective/any_rank.hpp"
#include "eyas/core/error.hpp"
#include "eyas/core/span.hpp"
#include "eyas/trainer/activity.hpp"
#include "eyas/trainer/agreement.hpp"
#include "eyas/trainer/batch_source.hpp"
#include "eyas/trainer/options.hpp"
#include "eyas/trainer/records.hpp"

namespace eyas::detail {

/// A trainer's checkpoints on their way to the disk, and back to the loader as acknowledgements.
/// Rank 0 copies the state, and a thread of its own writes the copy while training goes on; or,
/// where the options say so or nothing is left to train, the state itself is written at once.
///
/// At most one is under way. It is settled (durable, told to the callbacks, acknowledged; or its
/// failure thrown) on the trainer's thread: when a look finds it ended, else before the next one
/// begins, and at the end. All ranks settle it between the same two steps.
///
/// The trainer's thread alone calls it, and all ranks make the same calls. The writer's thread
/// reads the copy, the vocabulary map and the config, and nothing else of the trainer's.
template <class C>
class CheckpointWriter {
public:
    /// What it refers to must outlive it.
    CheckpointWriter(const TrainerOptions& options, C& collective, Activity& activity)
        : options_(options), collective_(collective), activity_(activity) {}

    /// train(), a run of the trainer, with the memory taken for copies of such content, where there
    /// will be any; starts seconds(). What train() throws goes on when the checkpoint under way, if
    /// any, is written to its end, and good. Should this fail, too, the one before is the last, and
    /// an Error says so at the end of its message; what is thrown of other types cannot.
    template <class F>
    TrainResult run(const CheckpointContent& content, F train) {
        seconds_ = 0;
        if (copies_checkpoints(options_) && collective_.is_root()) copy_.reserve(content);
        try {
            return train();
        } catch (Error& e) {
            if (const auto failure = end(); !failure.empty()) e.add(failure);
            throw;
        } catch (...) {
            end();
            throw;
        }
    }

    /// Settles the checkpoint before and begins that of content(), the last whole step's, whose
    /// other state is `now`; `last`: nothing is trained meanwhile, it is durable on return.
    /// content() gives a ContentOnHost. Of several ranks, the optimizer's state in it stays as it
    /// is until the next content().
    template <class F, class L>
    void save(F&& content, const CheckpointState& now, bool last, L& loader, TrainResult& result,
              const TrainerCallbacks& callbacks) {
        const Span span(options_.trace, SpanListener::Lane::Trainer, "checkpoint");
        settle(loader, result, callbacks);
        const bool at_once = last || !copies_checkpoints(options_);
        std::optional<std::invoke_result_t<F&>> whole;
        {
            const Timer timer(seconds_);
            whole.emplace(content());
            begin(whole->content(), now, at_once);
        }
        if (at_once) settle(loader, result, callbacks);
    }

    /// Settles what is under way if it has ended on rank 0, or if any rank is `short_of_data`: its
    /// producer may be waiting for the room that an acknowledgement gives.
    template <class L>
    void look(bool short_of_data, L& loader, TrainResult& result,
              const TrainerCallbacks& callbacks) {
        if (!under_way_) return;
        const bool ended = outcome_.valid() && outcome_.wait_for(std::chrono::seconds(0)) !=
                                                   std::future_status::timeout;
        if (any_rank(collective_, ended || short_of_data)) settle(loader, result, callbacks);
    }

    /// Waits for what is under way, if anything is. Throws, on every rank, when it could not be
    /// written: rank 0 what writing or the callback threw, the others ResourceError; nothing is
    /// acknowledged then. And what the loader throws.
    template <class L>
    void settle(L& loader, TrainResult& result, const TrainerCallbacks& callbacks) {
        if (!under_way_) return;
        const Timer timer(seconds_);
        const auto saved = *std::exchange(under_way_, std::nullopt);
        activity_.enter(saved.stage, saved.step);
        if (!options_.run_dir.empty()) make_durable(saved.step, result, callbacks);
        activity_.enter("acknowledging samples");
        auto position = loader.position();
        position.epoch = saved.epoch;
        position.batch = saved.batch;
        loader.acknowledge(position, saved.step);
    }

    /// A checkpoint in another directory, which keeps that one; at once. Errors on every rank, as
    /// of settle(). (Of several ranks, the one under way is written first: they share the memory
    /// that the optimizer's state is gathered in.)
    template <class F>
    void copy_to(const std::filesystem::path& directory, F&& content, const CheckpointState& now) {
        const Span span(options_.trace, SpanListener::Lane::Trainer, "checkpoint");
        const Timer timer(seconds_);
        if (collective_.world() > 1 && outcome_.valid()) outcome_.wait();
        const auto whole = content();
        on_root(now.step, directory, [&] { save_checkpoint(directory, whole.content(), now, 1); });
    }

    /// That training stood still for checkpoints in the run.
    double seconds() const { return seconds_; }

private:
    /// Adds the time of its life.
    class Timer {
    public:
        explicit Timer(double& sum) : sum_(sum) {}
        Timer(const Timer&) = delete;
        Timer& operator=(const Timer&) = delete;
        ~Timer() { sum_ += std::chrono::duration<double>(Clock::now() - start_).count(); }

    private:
        using Clock = std::chrono::steady_clock;
        double& sum_;
        Clock::time_point start_ = Clock::now();
    };

    struct Saved {
        std::int64_t step, epoch, batch;  // epoch and batch: where that step left the loader
        const char* stage;                // of settling it
    };

    /// Waits for what is under way and lets nobody hear of it but of its failure, which it
    /// returns; "" for none.
    std::string end() {
        if (!under_way_) return "";
        const auto saved = *std::exchange(under_way_, std::nullopt);
        activity_.enter(saved.stage, saved.step);
        try {
            if (outcome_.valid()) outcome_.get();
        } catch (const std::exception& e) {
            return "checkpoint " + std::to_string(saved.step) +
                   ", which was under way, could not be written: " + e.what();
        }
        return "";
    }

    void begin(const CheckpointContent& content, const CheckpointState& now, bool at_once) {
        if (!at_once) activity_.enter("copying the state for the checkpoint of step {}", now.step);
        under_way_ = Saved{now.step, now.epoch, now.batch,
                           at_once ? "writing the checkpoint of step {}"
                                   : "waiting for the checkpoint of step {} to reach the disk"};
        if (options_.run_dir.empty() || !collective_.is_root()) return;
        const auto write = [this, now](const CheckpointContent& what) {
            const Span span(options_.trace, SpanListener::Lane::Writer, "write checkpoint",
                            now.step);
            return save_checkpoint(options_.run_dir, what, now, options_.keep_checkpoints);
        };
        try {
            // Deferred: settle() writes. So it does, too, when the system has no thread to give.
            outcome_ = at_once ? std::async(std::launch::deferred, write, content)
                               : std::async(std::launch::async | std::launch::deferred, write,
                                            copy_of(content));
        } catch (...) {  // as if writing had failed: all ranks will hear of it together
            std::promise<std::filesystem::path> failed;
            failed.set_exception(std::current_exception());
            outcome_ = failed.get_future();
        }
    }

    CheckpointContent copy_of(const CheckpointContent& content) {
        if (collective_.world() == 1) return copy_.take(content);
        auto copy = copy_.take({content.parameters, content.vocab_map, content.config, {}});
        copy.optimizer = content.optimizer;  // rank 0's own copy already
        return copy;
    }

    void make_durable(std::int64_t step, TrainResult& result, const TrainerCallbacks& callbacks) {
        on_root(step, options_.run_dir, [&] {
            result.checkpoint = outcome_.get();
            if (callbacks.on_save) callbacks.on_save({*result.checkpoint, step, ""});
        });
    }

    template <class F>
    void on_root(std::int64_t step, const std::filesystem::path& where, F&& write) {
        all_or_none<ResourceError>(collective_,
                                   "rank 0 could not write checkpoint " + std::to_string(step),
                                   where.string(), [&] {
                                       if (collective_.is_root()) write();
                                   });
    }

    const TrainerOptions& options_;
    C& collective_;
    Activity& activity_;
    CheckpointSnapshot copy_;
    std::optional<Saved> under_way_;              // on every rank
    std::future<std::filesystem::path> outcome_;  // on rank 0; goes before copy_, and waits
    double seconds_ = 0;
};

}  // namespace eyas::detail
