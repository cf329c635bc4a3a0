#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <optional>
#include <type_traits>

#include "best_checkpoint.hpp"
#include "checkpoints.hpp"
#include "command.hpp"
#include "draft.hpp"
#include "evaluation_text.hpp"
#include "eyas/core/open_files.hpp"
#include "eyas/ingest/handshake.hpp"
#include "eyas/ledger/ledger.hpp"
#include "eyas/pipeline/pipeline.hpp"
#include "eyas/trainer/watchdog.hpp"
#include "group.hpp"
#include "plan_training.hpp"
#include "run_log.hpp"
#include "stores.hpp"

namespace eyas::cli {

class TrainCommand : public Command {
public:
    explicit TrainCommand(CLI::App& parent)
        : Command(
              parent, "train",
              "trainer: train a draft from a store; goes on from the last checkpoint in --out.\n"
              "Several processes train one draft, each on its share of the samples, where RANK, "
              "WORLD_SIZE, MASTER_ADDR and MASTER_PORT say so (torchrun, or set by hand), or "
              "mpirun "
              "or srun started them; --out is a directory that all of them see. Another number of "
              "processes may go on where they stopped, with as many samples a step in all") {
        draft_.declare(app_, true);
        app_.add_option("--init", init_,
                        "weights to start from instead of those of --seed: an exported draft, a "
                        "checkpoint or a run directory; their map too where --vocab-map is absent");
        app_.add_option(
                "--store", store_.uri,
                "file:DIR, disagg:DIR?store_id=NAME, packed:DIR, or eyas+tcp://HOST:PORT of eyas "
                "serve")
            ->required();
        app_.add_option("--manifest", manifest_,
                        "samples to train on: manifest.json, or a stream that is finished; for "
                        "file:DIR and packed:DIR all of the directory where absent");
        app_.add_flag("--follow", follow_,
                      "the manifest is a stream that its producer is still writing: train on its "
                      "samples as they come, once, in their order; schedules want --total-steps or "
                      "--max-steps")
            ->needs("--manifest");
        app_.add_option("--wait", wait_,
                        "seconds to wait for the producer's MANIFEST.done; with --follow, for a "
                        "new sample, and 0 for ever")
            ->capture_default_str();
        app_.add_flag("--consume-once", store_.consume_once,
                      "free each sample when a checkpoint contains its training for good");
        auto* held_out =
            app_.add_option("--eval-features", held_out_, "directory of held-out feature files");
        auto* interval =
            app_.add_option("--eval-interval", eval_interval_, "steps between held-out evaluations")
                ->capture_default_str()
                ->needs(held_out);
        held_out->needs(interval);
        app_.add_flag(
                "--keep-best", keep_best_,
                "also keep the checkpoint of the best held-out evaluation, by expected tokens "
                "per target pass, in OUT/best")
            ->needs(interval);
        app_.add_option("--watchdog", watchdog_,
                        "seconds in one stage (waiting for data, say) after which it is named on "
                        "stderr; 0: never")
            ->capture_default_str();
        app_.add_option(
                "--out", options_.trainer.run_dir,
                "run directory: checkpoint-STEP, run.json, metrics.jsonl, TensorBoard events, "
                "ledger.sqlite")
            ->required();
        app_.add_option("--peer-timeout", peer_timeout_,
                        "of several processes: seconds until all must have come, and that one may "
                        "be silent; longer than rank 0 takes to write a checkpoint")
            ->capture_default_str()
            ->check(CLI::Range(1, 86'400));
        app_.add_option("--bucket-bytes", options_.trainer.bucket_bytes,
                        "of several processes: gradients that go between them in one call, while "
                        "others are still being computed")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
        app_.add_option("--trace", trace_,
                        "write what is done when to this file, for chrome://tracing or Perfetto; "
                        "of several processes, rank 1 writes NAME-rank-1.json beside NAME.json");
        declare_training();
        declare_loading();
    }

private:
    void declare_loading() {
        auto& l = options_.loader;
        app_.add_option("--prefetch", l.prefetch, "batches read ahead; 0: none")
            ->capture_default_str();
        app_.add_option("--prefetch-threads", l.threads, "that read ahead, each a batch")
            ->capture_default_str();
        app_.add_option("--memory-budget", memory_budget_,
                        "bytes; a training that would need more is refused before it starts, with "
                        "what would help; 0: no limit")
            ->capture_default_str();
        app_.add_option("--ring-bytes", l.ring_bytes,
                        "memory of the batches read ahead and the current one; 0: what the largest "
                        "need");
    }

    void declare_training() {
        auto& t = options_.trainer;
        app_.add_option("--max-steps,--steps", t.max_steps,
                        "optimizer steps in all; 0: until the epochs end")
            ->capture_default_str();
        app_.add_option("--epochs", t.epochs, "passes over the samples")->capture_default_str();
        app_.add_option("--batch-size", options_.loader.batch_size,
                        "samples a batch; with --pack-tokens, rows")
            ->capture_default_str();
        app_.add_option("--accumulation", t.accumulation, "batches an optimizer step")
            ->capture_default_str();
        app_.add_flag("!--no-shuffle", options_.loader.shuffle, "take samples in their order");
        app_.add_flag("!--keep-last", options_.loader.drop_last,
                      "train on the short batch at the end of an epoch, too");
        app_.add_option("--max-len", options_.loader.max_len, "cut samples to so many tokens")
            ->capture_default_str();
        app_.add_option("--pack-tokens", options_.loader.pack_tokens,
                        "put several samples into one row of up to so many tokens, where they see "
                        "nothing of each other: less padding; samples longer than that are cut to "
                        "it; 0: a sample a row")
            ->capture_default_str();
        app_.add_option("--lr", t.schedule.base_rate, "learning rate after warm-up")
            ->capture_default_str();
        app_.add_option("--scheduler", scheduler_, "cosine, constant, linear or wsd")
            ->capture_default_str();
        app_.add_option("--warmup-ratio", t.schedule.warmup_ratio, "share of the steps")
            ->capture_default_str();
        app_.add_option("--total-steps", t.schedule.total_steps,
                        "horizon of the schedule, where it is not max-steps");
        app_.add_option("--max-grad-norm", t.max_grad_norm, "gradients are clipped to it; 0: not")
            ->capture_default_str();
        app_.add_option("--weight-decay", t.adamw.weight_decay, "decoupled")->capture_default_str();
        app_.add_option("--log-interval", t.log_interval, "steps between log lines")
            ->capture_default_str();
        app_.add_option("--save-interval", t.save_interval,
                        "steps between checkpoints; 0: only at the end")
            ->capture_default_str();
        app_.add_flag("!--no-async-checkpoints", t.async_checkpoints,
                      "let training stand still until a checkpoint is on disk, instead of writing "
                      "it from a copy of the state meanwhile");
        app_.add_option("--keep", t.keep_checkpoints, "newest checkpoints to keep; 0: all")
            ->capture_default_str();
    }

    OrderedJson run() override {
        raise_open_files();
        join_others();
        if (!follow_ && !manifest_.empty() && wait_ > 0 && !wait_for_producer()) return {};
        if (store_.consume_once && parse_store_uri(store_.uri).scheme == LocalFiles::scheme)
            throw ContractError("feature files where they lie are never removed", store_.uri,
                                "Leave out --consume-once, or ingest them into a store");
        options_.trainer.schedule.kind = schedule_from_name(scheduler_);
        options_.trainer.seed = draft_.seed;
        const auto config = read_model_config(draft_.config);
        if (!init_.empty()) {
            init_ = weights_file(init_).string();
            if (draft_.vocab_map.empty()) draft_.vocab_map = init_;
        }
        const auto map = draft_.map_for(config);
        if (follow_) {
            plan_memory(config, {});
            return follow(config, map);
        }
        const auto manifest = samples_of(store_, manifest_);
        if (store_.consume_once) require_removable(manifest);
        plan_memory(config, manifest);
        return draft_.with_model(config, map, [&](auto& model) {
            start_from(model);
            return with_store(store_, [&](auto& store) {
                return train(store, manifest, std::to_string(manifest.refs.size()), model);
            });
        });
    }

    /// Only rank 0 speaks; what goes wrong is said by all.
    void join_others() {
        group_.join(std::chrono::seconds(peer_timeout_));
        const auto me = group_.member();
        is_root_ = me.is_root();
        options_.loader.rank = me.rank();
        options_.loader.world = me.world();
        if (!is_root_ && !std::freopen("/dev/null", "w", stdout))
            eyas::detail::throw_errno("cannot open", "/dev/null");
    }

    /// What must not differ between ranks: the options but those of this process or machine, the
    /// samples, the checkpoint to go on from.
    template <class Samples>
    void require_agreement(const Samples& samples) const {
        if (group_.member().world() == 1) return;
        auto mine = configuration();
        for (const char* own : {"target", "draft-config", "vocab-map", "init", "store", "manifest",
                                "wait", "eval-features", "watchdog", "out", "peer-timeout", "trace",
                                "prefetch", "prefetch-threads", "memory-budget", "ring-bytes"})
            mine.erase(own);
        mine["samples"] = data_identity(samples, options_.loader).dump();
        const auto latest = latest_checkpoint(options_.trainer.run_dir);
        mine["the checkpoint in --out"] = latest.path ? latest.path->filename().string() : "none";
        group_.require_same(mine);
    }

    /// Of --init; a run that goes on takes those of its checkpoint afterwards.
    template <class M>
    void start_from(M& model) const {
        if (init_.empty()) return;
        load_weights(init_, model.parameters(), model.vocab_map());
        std::printf("starting from the weights of %s\n", init_.c_str());
    }

    /// Before anything is allocated.
    void plan_memory(const ModelConfig& config, const Manifest& manifest) {
        plan_ = plan_training(draft_, config, options_.loader, manifest,
                              is_root_ && copies_checkpoints(options_.trainer));
        plan_.require_within(memory_budget_);
        std::printf("memory plan, batches of up to %lld rows:\n%s",
                    static_cast<long long>(plan_.rows), plan_.text().c_str());
    }

    OrderedJson follow(const ModelConfig& config, const VocabMap& map) {
        options_.loader.shuffle = false;
        FollowedStream stream(
            manifest_, {.wait = std::chrono::seconds(wait_), .interrupt = &stop_requested()});
        std::fprintf(stderr, "following %s\n", manifest_.c_str());
        if (!stream.open()) return {};
        return draft_.with_model(config, map, [&](auto& model) {
            start_from(model);
            return with_store(
                store_, [&](auto& store) { return train(store, stream, "a stream of", model); });
        });
    }

    /// Whatever store or pool they are read through.
    static void require_removable(const Manifest& manifest) {
        for (const auto& ref : manifest.refs)
            if (ref.generation() == 0 && !eyas::detail::ShardLocation::parse(ref.feature_store_uri))
                throw ContractError("feature files where they lie are never removed",
                                    "sample '" + ref.sample_id + "', " + ref.feature_store_uri,
                                    "Leave out --consume-once, or ingest them into a store");
    }

    bool wait_for_producer() const {
        const ManifestHandshake handshake{manifest_};
        std::fprintf(stderr, "waiting for %s\n", handshake.marker(".done").c_str());
        return handshake.wait(std::chrono::seconds(wait_), [] { return !stop_requested(); });
    }

    /// The account of the run's samples, where they are freed or come once.
    template <class Samples>
    std::unique_ptr<Ledger> open_ledger(const Samples& samples) {
        if (!follow_ && !store_.consume_once) return nullptr;
        eyas::create_directories(options_.trainer.run_dir);
        const auto name = is_root_ ? std::string("ledger")
                                   : "ledger-rank-" + std::to_string(group_.member().rank());
        auto ledger = std::make_unique<Ledger>(options_.trainer.run_dir / (name + ".sqlite"),
                                               data_identity(samples, options_.loader).dump());
        options_.loader.acknowledgements = ledger.get();
        return ledger;
    }

    /// None where it was not asked for. trace.json of rank 0, trace-rank-1.json of rank 1.
    std::unique_ptr<TraceRecorder> open_trace() {
        if (trace_.empty()) return nullptr;
        const auto rank = group_.member().rank();
        const std::filesystem::path path(trace_);
        auto name = path.stem();
        if (rank > 0) name += "-rank-" + std::to_string(rank);
        name += path.extension();
        auto trace = std::make_unique<TraceRecorder>(path.parent_path() / name, rank);
        options_.trainer.trace = trace.get();
        return trace;
    }

    /// `samples`: a manifest or a stream; `count`: how many there are, in words.
    template <class S, class Samples, class M>
    OrderedJson train(S& store, Samples& samples, const std::string& count, M& model) {
        require_agreement(samples);
        group_.share_weights(model);
        const auto ledger = open_ledger(samples);
        const auto trace = open_trace();
        Pipeline<S, Trainer<M, TrainingGroup::Member>> pipeline(store, samples, model, options_,
                                                                group_.member());
        std::printf("%s samples from %s, draft of %.2f M parameters, TTT length %lld, %s\n",
                    count.c_str(), store_.uri.c_str(),
                    static_cast<double>(model.parameter_count()) / 1e6,
                    static_cast<long long>(draft_.model.ttt_length), draft_.precision.c_str());
        say_packing(samples, pipeline.loader());
        std::fflush(stdout);
        // Now, not after an hour, it is told that there are no good held-out samples.
        if (!held_out_.empty()) with_held_out([](auto&) {});
        std::optional<RunLog> log;
        if (is_root_) log.emplace(options_.trainer.run_dir).start(configuration(), plan_);
        best_.open(keep_best_ ? options_.trainer.run_dir / "best" : "");
        std::unique_ptr<Progress> progress;
        TrainerCallbacks callbacks;
        callbacks.on_step = [&](const StepRecord& s) {
            reached_ = s.step;
            if (stop_requested()) pipeline.trainer().request_stop();
            if (is_root_) {
                if (!progress) progress = std::make_unique<Progress>("train", s.last_step);
                char note[64];
                std::snprintf(note, sizeof note, "  loss %.3f", s.loss);
                progress->show(s.step, note);
            }
            if (eval_interval_ > 0 && s.step % eval_interval_ == 0 && !held_out_.empty())
                evaluate(pipeline.trainer(), s.step, progress.get(), log ? &*log : nullptr);
        };
        callbacks.on_log = [&](const LogRecord& r) {
            if (progress) progress->interrupt();
            print(r);
            if (log) log->write(r);
        };
        callbacks.on_resume = [&](const CheckpointRecord& c) {
            if (log) log->go_on_from(c.step);
            std::printf("resumed from %s%s%s\n", c.path.c_str(), c.report.empty() ? "" : "; ",
                        c.report.c_str());
        };
        const Watchdog watchdog(
            pipeline.trainer().activity(), std::chrono::seconds(watchdog_),
            [&](const char* stage, std::chrono::milliseconds lasted) {
                std::fprintf(stderr, "\nno progress for %lld s: %s (store %s, step %lld)\n",
                             static_cast<long long>(lasted.count() / 1000), stage,
                             store_.uri.c_str(), static_cast<long long>(reached_.load()));
            });
        const auto result = pipeline.run(callbacks);
        if (trace) trace->close();
        const auto path = result.checkpoint ? result.checkpoint->string() : std::string();
        std::printf("%s at step %lld after %s (%.2f s stood still for checkpoints): %s\n",
                    result.stopped ? "stopped (run it again to go on)" : "done",
                    static_cast<long long>(result.step), duration_text(result.seconds).c_str(),
                    result.checkpoint_seconds, path.c_str());
        if (result.left_over > 0)
            std::printf("%lld batches at the end make no whole optimizer step: not trained\n",
                        static_cast<long long>(result.left_over));
        OrderedJson account;
        if (ledger) {
            const auto s = ledger->summary();
            account = {{"acknowledged", s.acknowledged}, {"freed", s.freed}};
            std::printf("%lld samples acknowledged, %lld of them freed\n",
                        static_cast<long long>(s.acknowledged), static_cast<long long>(s.freed));
        }
        return {{"checkpoint", path},
                {"left_over", result.left_over},
                {"ledger", account},
                {"step", result.step},
                {"steps", result.steps},
                {"stopped", result.stopped},
                {"seconds", result.seconds},
                {"checkpoint_seconds", result.checkpoint_seconds},
                {"tokens_per_second", result.last_log ? result.last_log->tokens_per_second : 0},
                {"peak_memory_mb", peak_memory_mb()},
                {"curve", curve_}};
    }

    /// How samples lie in rows, where several share one.
    template <class Samples, class L>
    void say_packing(const Samples& samples, const L& loader) const {
        const auto& o = options_.loader;
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

    /// Calls f with a loader of the held-out samples; they are files beside the trainer, whatever
    /// the store.
    template <class F>
    void with_held_out(F&& f) {
        Store<LocalFiles> store(local_files_options(parse_store_uri("file:" + held_out_)));
        auto loader_options = held_out_options(options_.loader);
        loader_options.ring_bytes = 0;  // the option's were reckoned for the training samples
        Loader loader(store, scan_features(held_out_), loader_options);
        f(loader);
    }

    /// A point of the held-out curve. All ranks make it, since none could go on meanwhile; rank 0
    /// has progress and log.
    template <class T>
    void evaluate(T& trainer, std::int64_t step, Progress* progress, RunLog* log) {
        Evaluation e;
        with_held_out([&](auto& loader) { e = eyas::evaluate(trainer.model(), loader); });
        if (progress) progress->interrupt();
        std::printf("held out at step %lld: %s\n", static_cast<long long>(step),
                    evaluation_text(e).c_str());
        curve_.push_back(evaluation_json(e));
        curve_.back()["step"] = step;
        if (log) log->write_held_out(curve_.back());
        if (group_.root_says(best_.is_better(e))) best_.keep(e, step, trainer, is_root_);
    }

    TrainingGroup group_;
    bool is_root_ = true;
    std::int64_t peer_timeout_ = 300;
    DraftArguments draft_;
    StoreArguments store_;
    PipelineOptions options_;
    std::string manifest_, scheduler_ = "cosine", held_out_, init_, trace_;
    std::int64_t wait_ = 0, eval_interval_ = 0;
    bool follow_ = false;
    std::uint64_t memory_budget_ = 0;
    bool keep_best_ = false;
    BestCheckpoint best_;
    std::int64_t watchdog_ = 300;
    std::atomic<std::int64_t> reached_{0};
    MemoryPlan plan_;
    OrderedJson curve_ = OrderedJson::array();
};

}  // namespace eyas::cli
