#pragma once
#include <atomic>
#include <cmath>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/checkpoint/on_host.hpp"
#include "eyas/checkpoint/run_lock.hpp"
#include "eyas/collective/any_rank.hpp"
#include "eyas/collective/collective.hpp"
#include "eyas/loader/options.hpp"
#include "eyas/model/concept.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/optimizer/clip.hpp"
#include "eyas/optimizer/schedule.hpp"
#include "eyas/trainer/activity.hpp"
#include "eyas/trainer/agreement.hpp"
#include "eyas/trainer/batch_source.hpp"
#include "eyas/trainer/checkpoint_writer.hpp"
#include "eyas/trainer/gradient_exchange.hpp"
#include "eyas/trainer/identity.hpp"
#include "eyas/trainer/log_window.hpp"
#include "eyas/trainer/metric_totals.hpp"
#include "eyas/trainer/options.hpp"
#include "eyas/trainer/plan.hpp"
#include "eyas/trainer/records.hpp"
#include "eyas/trainer/resume.hpp"
#include "eyas/trainer/shards.hpp"
#include "eyas/trainer/shortage.hpp"
#include "eyas/trainer/state_gather.hpp"
#include "eyas/trainer/step_sums.hpp"

namespace eyas {

/// Trains a draft: accumulate A batches, reduce over ranks, clip, update, log, save; and goes on
/// exactly where a killed run stopped. The same code whatever the store, the device and the model.
/// Of several ranks each keeps the optimizer's state of its share of the parameters alone.
/// One thread drives it (and the model); only request_stop() may come from elsewhere. The model
/// must outlive it. After an exception the model and optimizer are those of the last whole step
/// (but for a TransportError among several ranks, after which only a checkpoint is), and the
/// checkpoints on disk are good.
template <DraftModel M, class C = Collective<Solo>>
class Trainer {
public:
    using model_type = M;
    using collective_type = C;
    using optimizer_type = AdamW<typename M::DeviceType>;

    /// Throws ContractError for options that make no sense, and for several ranks whose collective
    /// does not reach the device's memory.
    Trainer(M& model, TrainerOptions options, C collective = C())
        : model_(model),
          options_((check_trainer_options(options), std::move(options))),
          collective_((detail::check_exchange(device(), collective), std::move(collective))),
          shards_(model.parameters(), collective_.rank(), collective_.world(),
                  options_.bucket_bytes),
          exchange_(device(), shards_, collective_, options_.trace),
          optimizer_(model.device(), shards_.owned(), options_.adamw) {}

    /// Trains until max_steps or the end of the loader's epochs, or until request_stop(). Resumes
    /// first as options().resume says, and writes a checkpoint at the end. A later call goes on
    /// from where the loader stands. When a checkpoint is durable (or at its time, where there is
    /// no run directory) the loader is told to acknowledge what it contains. Those before the last
    /// are written while training goes on (async_checkpoints); a failure of that ends the run at
    /// the next step. All are durable, or their failure was thrown, before this returns. Before it
    /// throws, the one under way is written to its end; if that fails, too, an Error tells both.
    /// A loader of unknown length (a stream) ends the run with its data, also where waiting for
    /// them was interrupted; the batches of a step that is not whole are untrained then and come
    /// again in a resumed run. When waiting fails (TransportError), a checkpoint is written first.
    /// Throws ContractError (options that do not fit the data or the checkpoint), DataError (bad
    /// checkpoint, bad batch, a loss that is not finite), ResourceError (disk, or another trainer
    /// in the run directory), what the loader and the callbacks throw.
    template <BatchSource L>
    TrainResult run(L& loader, const TrainerCallbacks& callbacks = {}) {
        std::optional<RunLock> lock;
        if (!options_.run_dir.empty() && collective_.is_root()) lock.emplace(options_.run_dir);
        const bool whole = !shards_.shared();  // else it is gathered first
        return writer_.run(content(whole ? optimizer_.state() : std::vector<NamedBuffer>()),
                           [&] { return train(loader, callbacks); });
    }

    /// Ends run() after the step in progress, with a checkpoint. Any thread. For Ctrl-C, see
    /// core/stop_signals.hpp: no signal handler may run on a thread that multiplies matrices.
    void request_stop() noexcept { stop_.store(true); }

    /// A checkpoint of the last whole step in another directory, which keeps that one. For
    /// callbacks; every rank calls it. Throws on rank 0 what writing threw, else ResourceError.
    void save_copy(const std::filesystem::path& directory) {
        writer_.copy_to(
            directory, [this] { return whole_content(); }, state());
    }

    std::int64_t step() const { return step_; }             // optimizer steps done in all
    const Activity& activity() const { return activity_; }  // for a Watchdog
    M& model() { return model_; }
    optimizer_type& optimizer() { return optimizer_; }  // of this rank's share

private:
    struct StepDone {
        double loss, norm, rate;
    };

    /// run(), with the lock held.
    template <class L>
    TrainResult train(L& loader, const TrainerCallbacks& callbacks) {
        const auto plan = make_plan(options_, loader);
        auto schedule_options = options_.schedule;
        schedule_options.total_steps = plan.total_steps;
        const Schedule schedule(schedule_options);
        identity_ =
            run_identity(options_, schedule_options, model_.config(), M::PrecisionType::name,
                         collective_.world(), loader.batches_per_epoch());
        TrainResult result;
        if (!started_) result.checkpoint = start(loader, callbacks);
        mark(loader);
        // What an earlier run wrote a checkpoint of, and may not have come to acknowledge.
        if (!started_ && !options_.run_dir.empty())
            loader.acknowledge(detail::position_at(loader, done_), step_);
        started_ = true;
        const auto first_step = step_;
        const auto shown_last = plan.known_last_step();
        detail::LogWindow window(first_step, loader.stall_seconds());
        MetricTotals timed;  // this run()'s share of interval_
        detail::Shortage shortage;
        bool stop = any_rank(collective_, stop_.exchange(false));
        bool saved = result.checkpoint.has_value();
        while (step_ < plan.last_step && !stop) {
            writer_.look(detail::may_wait_for_data(loader, plan.open, options_.accumulation),
                         loader, result, callbacks);
            const auto done = train_step(loader, schedule.rate(step_), plan.open, timed, shortage);
            if (!done) break;
            saved = false;
            activity_.enter("in the callbacks of a step");
            if (callbacks.on_step)
                callbacks.on_step({step_, shown_last, done->loss, done->norm, done->rate});
            if (options_.log_interval > 0 && step_ % options_.log_interval == 0)
                result.last_log = log(loader, window, timed, *done, shown_last, callbacks);
            stop = any_rank(collective_, stop_.exchange(false));
            if (options_.save_interval > 0 && step_ % options_.save_interval == 0) {
                save(stop || step_ >= plan.last_step, loader, result, callbacks);
                saved = true;
            }
        }
        if (!saved && step_ > 0) save(true, loader, result, callbacks);
        writer_.settle(loader, result, callbacks);
        if (shortage.error) std::rethrow_exception(shortage.error);
        stop = stop || shortage.interrupted;
        result.left_over = shortage.interrupted ? 0 : shortage.batches;
        result.step = step_;
        result.steps = step_ - first_step;
        result.stopped = stop && step_ < plan.last_step;
        result.seconds = window.seconds();
        result.checkpoint_seconds = writer_.seconds();
        return result;
    }

    /// One optimizer step; nothing, and nothing changes, where an open plan's data are short.
    template <class L>
    std::optional<StepDone> train_step(L& loader, double rate, bool open, MetricTotals& timed,
                                       detail::Shortage& shortage) {
        model_.zero_gradients();
        detail::StepSums sums;
        const typename decltype(exchange_)::Step under_way(exchange_);
        const auto scale = static_cast<float>(
            1.0 / (static_cast<double>(options_.accumulation) * collective_.world()));
        for (shortage = {}; shortage.batches < options_.accumulation;) {
            const Batch* batch = [&] {
                const auto stage = enter("waiting for data from the store", "wait for data");
                return detail::next_batch(loader, open, step_ + 1, shortage);
            }();
            const bool last = shortage.batches == options_.accumulation;
            if (open && (!batch || last) && any_rank(collective_, !batch)) {
                loader.seek(detail::position_at(loader, done_));
                detail::share(collective_, shortage);
                return std::nullopt;
            }
            detail::show_ahead(model_, loader);
            sums.add(forward_backward(*batch, scale, last), *batch);
        }
        activity_.enter("joining the ranks' gradients and updating");
        const auto [bad, norm] = exchange_.finish(!sums.bad.empty());
        if (bad) detail::refuse_step(step_ + 1, "the loss is not finite", sums.bad);
        if (!std::isfinite(norm))
            detail::refuse_step(step_ + 1, "the gradient is not finite", sums.ids);
        exchange_.update(optimizer_, rate, clip_scale(norm, options_.max_grad_norm));
        ++step_;
        shortage = {};  // a whole step
        mark(loader);
        interval_.add(sums.metrics);
        timed.add(sums.metrics);
        return StepDone{sums.metrics.mean_loss(), norm, rate};
    }

    /// With the last batch of a step, gradients are exchanged as they become final.
    decltype(auto) forward_backward(const Batch& batch, float scale, bool last) {
        const auto stage = enter("computing forward and backward", "forward and backward");
        return last ? exchange_.forward_backward(model_, batch, scale)
                    : model_.forward_backward(batch, scale);
    }

    template <class L>
    LogRecord log(L& loader, detail::LogWindow& window, MetricTotals& timed, const StepDone& done,
                  std::int64_t last_step, const TrainerCallbacks& callbacks) {
        LogRecord r;
        r.step = step_;
        r.last_step = last_step;
        r.epoch = loader.position().epoch;
        r.learning_rate = done.rate;
        r.grad_norm = done.norm;
        r.checkpoint_seconds = writer_.seconds();
        r = window.record(detail::over_ranks(collective_, interval_),
                          detail::over_ranks(collective_, timed), std::move(r),
                          loader.stall_seconds());
        interval_ = {};
        timed = {};
        if (callbacks.on_log) callbacks.on_log(r);
        return r;
    }

    /// A checkpoint of the last whole step, `last`: of the run.
    template <class L>
    void save(bool last, L& loader, TrainResult& result, const TrainerCallbacks& callbacks) {
        writer_.save([this] { return whole_content(); }, state(), last, loader, result, callbacks);
    }

    template <class L>
    void mark(const L& loader) {
        done_ = {loader.position().epoch, loader.position().batch};
    }

    CheckpointState state() {
        return {.step = step_,
                .epoch = done_.epoch,
                .batch = done_.batch,
                .optimizer_step = optimizer_.step_count(),
                .metrics = detail::over_ranks(collective_, interval_).to_json(),
                .identity = identity_};
    }

    /// All ranks go on from the same checkpoint, or all throw.
    template <class L>
    std::optional<std::filesystem::path> start(L& loader, const TrainerCallbacks& callbacks) {
        const auto from = detail::common_checkpoint(collective_, options_.run_dir, options_.resume);
        if (!from.path) return std::nullopt;
        detail::all_or_none<ContractError>(
            collective_, "another rank cannot resume", from.path->string(), [&] {
                const auto s = detail::restore_for(device(), identity_, from,
                                                   content(optimizer_.state()), shards_);
                optimizer_.set_step_count(s.optimizer_step);
                step_ = s.step;
                const auto sums = MetricTotals::from_json(s.metrics, from.path->string());
                interval_ = collective_.is_root() ? sums : sums.zeros();  // they are over all ranks
                done_ = {s.epoch, s.batch};
                loader.seek(detail::position_at(loader, done_));
                if (callbacks.on_resume) callbacks.on_resume({*from.path, step_, from.report});
            });
        return from.path;
    }

    CheckpointContent content(std::vector<NamedBuffer> optimizer) {
        return {model_.parameters(), model_.vocab_map(), model_.config(), std::move(optimizer)};
    }

    /// Of all ranks, on rank 0, where the host reads it; all of them call it.
    auto whole_content() {
        auto whole = content(gather_.gather(optimizer_.state()));
        if (!collective_.is_root()) whole.parameters = {};  // nobody reads them
        return detail::ContentOnHost(device(), std::move(whole), shards_.shared());
    }

    const auto& device() const { return std::as_const(model_).device(); }

    /// `stage` for a watchdog, `span` for a trace.
    Span enter(const char* stage, const char* span) {
        activity_.enter(stage);
        return {options_.trace, SpanListener::Lane::Trainer, span};
    }

    M& model_;
    TrainerOptions options_;
    C collective_;
    detail::Shards shards_;
    detail::GradientExchange<typename M::DeviceType, C> exchange_;
    optimizer_type optimizer_;
    detail::StateGather<typename M::DeviceType, C> gather_{device(), shards_, collective_};
    Json identity_;
    LoaderPosition done_;    // of the batch after the last whole step
    MetricTotals interval_;  // since the last log record, this rank's share
    std::int64_t step_ = 0;
    bool started_ = false;
    std::atomic<bool> stop_{false};
    Activity activity_;
    detail::CheckpointWriter<C> writer_{options_, collective_, activity_};
};

}  // namespace eyas
