#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>

#include "best_checkpoint.hpp"
#include "evaluation_text.hpp"
#include "eyas/core/stop_signals.hpp"
#include "eyas/trainer/watchdog.hpp"
#include "group.hpp"
#include "held_out.hpp"
#include "run_log.hpp"
#include "train_arguments.hpp"

namespace eyas::cli {

/// The training itself, from resuming to the last checkpoint: progress line, logs, held-out
/// evaluations, the best checkpoint, the watchdog.
class TrainingRun {
public:
    /// All are borrowed. `configuration` and `plan` are for run.json.
    TrainingRun(const TrainArguments& arguments, const TrainingGroup& group,
                const HeldOut& held_out, const OrderedJson& configuration, const MemoryPlan& plan)
        : a_(arguments),
          group_(group),
          held_out_(held_out),
          configuration_(configuration),
          plan_(plan),
          is_root_(group.member().is_root()) {
        best_.open(a_.keep_best ? a_.options.trainer.run_dir / "best" : "");
    }

    /// `samples`: a manifest or a stream; `count`: how many there are, in words. Returns what
    /// --json prints.
    template <class S, class Samples, class M>
    OrderedJson operator()(S& store, Samples& samples, const std::string& count, M& model) {
        Pipeline<S, Trainer<M, TrainingGroup::Member>> pipeline(store, samples, model, a_.options,
                                                                group_.member());
        // Only now: a training that is refused leaves nothing in the run directory.
        if (is_root_) log_.emplace(a_.options.trainer.run_dir).start(configuration_, plan_);
        std::printf("%s samples from %s, draft of %.2f M parameters, TTT length %lld, %s\n",
                    count.c_str(), a_.store.uri.c_str(),
                    static_cast<double>(model.parameter_count()) / 1e6,
                    static_cast<long long>(a_.draft.model.ttt_length), a_.draft.precision.c_str());
        say_packing(samples, pipeline.loader());
        std::fflush(stdout);
        const Watchdog watchdog(
            pipeline.trainer().activity(), std::chrono::seconds(a_.watchdog),
            [&](const char* stage, std::chrono::milliseconds lasted) {
                std::fprintf(stderr, "\nno progress for %lld s: %s (store %s, step %lld)\n",
                             static_cast<long long>(lasted.count() / 1000), stage,
                             a_.store.uri.c_str(), static_cast<long long>(reached_.load()));
            });
        return told(pipeline.run(callbacks(pipeline.trainer())));
    }

private:
    template <class T>
    TrainerCallbacks callbacks(T& trainer) {
        TrainerCallbacks c;
        c.on_step = [&](const StepRecord& s) {
            reached_ = s.step;
            if (stop_requested()) trainer.request_stop();
            show(s);
            if (a_.eval_interval > 0 && s.step % a_.eval_interval == 0 && held_out_.any())
                evaluate(trainer, s.step);
        };
        c.on_log = [&](const LogRecord& r) {
            if (progress_) progress_->interrupt();
            print(r);
            if (log_) log_->write(r);
        };
        c.on_resume = [&](const CheckpointRecord& r) {
            if (log_) log_->go_on_from(r.step);
            std::printf("resumed from %s%s%s\n", r.path.c_str(), r.report.empty() ? "" : "; ",
                        r.report.c_str());
        };
        return c;
    }

    void show(const StepRecord& s) {
        if (!is_root_) return;
        if (!progress_) progress_ = std::make_unique<Progress>("train", s.last_step);
        char note[64];
        std::snprintf(note, sizeof note, "  loss %.3f", s.loss);
        progress_->show(s.step, note);
    }

    /// A point of the held-out curve. All ranks make it.
    template <class T>
    void evaluate(T& trainer, std::int64_t step) {
        const auto e = held_out_.evaluate(trainer.model(), group_.member());
        if (progress_) progress_->interrupt();
        std::printf("held out at step %lld: %s\n", static_cast<long long>(step),
                    evaluation_text(e).c_str());
        curve_.push_back(evaluation_json(e));
        curve_.back()["step"] = step;
        if (log_) log_->write_held_out(curve_.back());
        const bool better = group_.root_says(best_.hear(e));
        if (better && best_.keeps()) best_.keep(step, trainer, is_root_);
        if (a_.early_stop > 0 && group_.root_says(best_.without_better() >= a_.early_stop)) {
            ended_early_ = true;
            trainer.request_stop();
        }
    }

    OrderedJson told(const TrainResult& result) const {
        const auto path = result.checkpoint ? result.checkpoint->string() : std::string();
        const bool stopped = result.stopped && !ended_early_;
        const auto how = stopped        ? std::string("stopped (run it again to go on)")
                         : ended_early_ ? "done: no better held-out figure in " +
                                              std::to_string(a_.early_stop) + " evaluations,"
                                        : std::string("done");
        std::printf("%s at step %lld after %s (%.2f s stood still for checkpoints): %s\n",
                    how.c_str(), static_cast<long long>(result.step),
                    duration_text(result.seconds).c_str(), result.checkpoint_seconds, path.c_str());
        if (result.left_over > 0)
            std::printf("%lld batches at the end make no whole optimizer step: not trained\n",
                        static_cast<long long>(result.left_over));
        return {{"checkpoint", path},
                {"left_over", result.left_over},
                {"step", result.step},
                {"steps", result.steps},
                {"stopped", stopped},
                {"ended_early", ended_early_},
                {"seconds", result.seconds},
                {"checkpoint_seconds", result.checkpoint_seconds},
                {"tokens_per_second", result.last_log ? result.last_log->tokens_per_second : 0},
                {"peak_memory_mb", peak_memory_mb()},
                {"curve", curve_}};
    }

    /// How samples lie in rows, where several share one.
    template <class Samples, class L>
    void say_packing(const Samples& samples, const L& loader) const {
        const auto& o = a_.options.loader;
        if (!o.packed()) return;
        std::printf("packed into rows of up to %lld tokens", static_cast<long long>(o.pack_tokens));
        if constexpr (std::same_as<std::remove_const_t<Samples>, Manifest>) {
            const auto cut = std::ranges::count_if(samples.refs, [&](const SampleRef& ref) {
                return ref.num_tokens > o.longest_sample();
            });
            std::printf(": %lld batches in the first epoch, %lld samples cut to %lld tokens",
                        static_cast<long long>(loader.batches_per_epoch()),
                        static_cast<long long>(cut), static_cast<long long>(o.longest_sample()));
        }
        std::printf("\n");
    }

    static void print(const LogRecord& r) {
        std::printf(
            "step %lld/%s  loss %.4f  accuracy %s  acceptance %s  lr %.2e  norm %.2f  %.0f "
            "tokens/s  padding %.1f %%  stall %.1f %%  ETA %s\n",
            static_cast<long long>(r.step),
            r.last_step > 0 ? std::to_string(r.last_step).c_str() : "?", r.loss,
            rates_text(r.accuracy).c_str(), rates_text(r.acceptance).c_str(), r.learning_rate,
            r.grad_norm, r.tokens_per_second, r.padding_percent, r.stall_percent,
            r.last_step > 0 ? duration_text(r.eta_seconds).c_str() : "?");
        std::fflush(stdout);
    }

    const TrainArguments& a_;
    const TrainingGroup& group_;
    const HeldOut& held_out_;
    const OrderedJson& configuration_;
    const MemoryPlan& plan_;
    bool is_root_;
    std::optional<RunLog> log_;  // of rank 0
    BestCheckpoint best_;
    bool ended_early_ = false;
    std::unique_ptr<Progress> progress_;  // of rank 0
    std::atomic<std::int64_t> reached_{0};
    OrderedJson curve_ = OrderedJson::array();
};

}  // namespace eyas::cli
