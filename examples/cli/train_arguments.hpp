#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "draft.hpp"
#include "eyas/pipeline/pipeline.hpp"
#include "stores.hpp"

namespace eyas::cli {

/// What `eyas train` is told.
struct TrainArguments {
    DraftArguments draft;
    StoreArguments store;
    PipelineOptions options;
    std::string manifest, scheduler = "cosine", held_out, held_out_draft = "chain:5", init, trace;
    std::int64_t wait = 0, eval_interval = 0, early_stop = 0, peer_timeout = 300, watchdog = 300;
    bool follow = false, keep_best = false;
    std::uint64_t memory_budget = 0;

    void declare(CLI::App& app) {
        draft.declare(app, true);
        app.add_flag("--cuda-graphs", draft.model.replay_steps,
                     "with --device cuda: record most of a step as CUDA graphs, once for each "
                     "shape of batches, and launch those: the same bits, less work for the host. "
                     "Not run on a GPU yet");
        app.add_option("--init", init,
                       "weights to start from instead of those of --seed: a draft that "
                       "was exported here or by another program, a checkpoint or a run directory; "
                       "their map too where --vocab-map is absent");
        declare_samples(app);
        auto* features =
            app.add_option("--eval-features", held_out, "directory of held-out feature files");
        auto* interval =
            app.add_option("--eval-interval", eval_interval, "steps between held-out evaluations")
                ->capture_default_str()
                ->needs(features);
        features->needs(interval);
        app.add_option("--eval-draft", held_out_draft,
                       "drafts whose acceptance length held-out evaluations measure by decoding "
                       "along the samples: chain:DEPTH, tree:W1,W2,... or "
                       "dynamic:DEPTH,TOP_K,TOTAL, @P behind it: no further where the draft gives "
                       "its tokens a probability below P; none: not")
            ->capture_default_str();
        app.add_flag("--keep-best", keep_best,
                     "also keep the checkpoint of the best held-out evaluation, by acceptance "
                     "length (where it is not measured by expected tokens per target pass), in "
                     "OUT/best")
            ->needs(interval);
        app.add_option("--early-stop", early_stop,
                       "end after so many held-out evaluations in a row without a better one; 0: "
                       "never")
            ->capture_default_str()
            ->needs(interval);
        app.add_option("--watchdog", watchdog,
                       "seconds in one stage (waiting for data, say) after which it is named on "
                       "stderr; 0: never")
            ->capture_default_str();
        app.add_option(
               "--out", options.trainer.run_dir,
               "run directory: checkpoint-STEP, run.json, metrics.jsonl, TensorBoard events, "
               "ledger.sqlite")
            ->required();
        declare_group(app);
        declare_training(app);
        declare_loading(app);
    }

private:
    void declare_samples(CLI::App& app) {
        app.add_option(
               "--store", store.uri,
               "file:DIR, disagg:DIR?store_id=NAME, packed:DIR, or eyas+tcp://HOST:PORT of eyas "
               "serve")
            ->required();
        app.add_option("--manifest", manifest,
                       "samples to train on: manifest.json, or a stream that is finished; for "
                       "file:DIR and packed:DIR all of the directory where absent");
        app.add_flag("--follow", follow,
                     "the manifest is a stream that its producer is still writing: train on its "
                     "samples as they come, once, in their order; schedules want --total-steps or "
                     "--max-steps")
            ->needs("--manifest");
        app.add_option("--wait", wait,
                       "seconds to wait for the producer's MANIFEST.done; with --follow, for a "
                       "new sample, and 0 for ever")
            ->capture_default_str();
        app.add_flag("!--no-verify", store.verify,
                     "do not compare checksums of what is read; with --device cuda, from a pool "
                     "over eyas+ucx:// with same_host=0, states then go straight into GPU memory, "
                     "where UCX has transports to it");
        app.add_flag("--consume-once", store.consume_once,
                     "free each sample when a checkpoint contains its training for good");
    }

    void declare_group(CLI::App& app) {
        app.add_option("--peer-timeout", peer_timeout,
                       "of several processes: seconds until all must have come, and that one may "
                       "be silent; longer than rank 0 takes to write a checkpoint")
            ->capture_default_str()
            ->check(CLI::Range(1, 86'400));
        app.add_option("--bucket-bytes", options.trainer.bucket_bytes,
                       "of several processes: gradients that go between them in one call, while "
                       "others are still being computed")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
        app.add_option("--trace", trace,
                       "write what is done when to this file, for chrome://tracing or Perfetto; "
                       "of several processes, rank 1 writes NAME-rank-1.json beside NAME.json");
    }

    void declare_loading(CLI::App& app) {
        auto& l = options.loader;
        app.add_option("--prefetch", l.prefetch, "batches read ahead; 0: none")
            ->capture_default_str();
        app.add_option("--prefetch-threads", l.threads, "that read ahead, each a batch")
            ->capture_default_str();
        app.add_option("--memory-budget", memory_budget,
                       "bytes; a training that would need more is refused before it starts, with "
                       "what would help; 0: no limit")
            ->capture_default_str();
        app.add_option("--ring-bytes", l.ring_bytes,
                       "memory of the batches read ahead and the current one; 0: what the largest "
                       "need");
    }

    void declare_training(CLI::App& app) {
        auto& t = options.trainer;
        app.add_option("--max-steps,--steps", t.max_steps,
                       "optimizer steps in all; 0: until the epochs end")
            ->capture_default_str();
        app.add_option("--epochs", t.epochs, "passes over the samples")->capture_default_str();
        app.add_option("--batch-size", options.loader.batch_size,
                       "samples a batch; with --pack-tokens, rows")
            ->capture_default_str();
        app.add_option("--accumulation", t.accumulation, "batches an optimizer step")
            ->capture_default_str();
        app.add_flag("!--no-shuffle", options.loader.shuffle, "take samples in their order");
        app.add_flag("!--keep-last", options.loader.drop_last,
                     "train on the short batch at the end of an epoch, too");
        app.add_option("--max-len", options.loader.max_len, "cut samples to so many tokens")
            ->capture_default_str();
        app.add_option("--pack-tokens", options.loader.pack_tokens,
                       "put several samples into one row of up to so many tokens, where they see "
                       "nothing of each other: less padding; samples longer than that are cut to "
                       "it; 0: a sample a row")
            ->capture_default_str();
        app.add_option("--pad-to-multiple-of", options.loader.pad_to_multiple_of,
                       "pad rows to a multiple of so many tokens, or to --max-len or --pack-tokens "
                       "where that is less: batches then come in few shapes, as --cuda-graphs (8 "
                       "at most) and --attention cudnn want it")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
        app.add_option("--lr", t.schedule.base_rate, "learning rate after warm-up")
            ->capture_default_str();
        app.add_option("--scheduler", scheduler, "cosine, constant, linear or wsd")
            ->capture_default_str();
        app.add_option("--warmup-ratio", t.schedule.warmup_ratio, "share of the steps")
            ->capture_default_str();
        app.add_option("--total-steps", t.schedule.total_steps,
                       "horizon of the schedule, where it is not max-steps");
        app.add_option("--max-grad-norm", t.max_grad_norm, "gradients are clipped to it; 0: not")
            ->capture_default_str();
        app.add_option("--weight-decay", t.adamw.weight_decay, "decoupled")->capture_default_str();
        app.add_option("--log-interval", t.log_interval, "steps between log lines")
            ->capture_default_str();
        app.add_option("--save-interval", t.save_interval,
                       "steps between checkpoints; 0: only at the end")
            ->capture_default_str();
        app.add_flag("!--no-async-checkpoints", t.async_checkpoints,
                     "let training stand still until a checkpoint is on disk, instead of writing "
                     "it from a copy of the state meanwhile");
        app.add_option("--keep", t.keep_checkpoints, "newest checkpoints to keep; 0: all")
            ->capture_default_str();
    }
};

}  // namespace eyas::cli
