#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "checkpoints.hpp"
#include "command.hpp"
#include "eyas/checkpoint/on_host.hpp"
#include "eyas/core/open_files.hpp"
#include "eyas/ingest/handshake.hpp"
#include "eyas/ledger/ledger.hpp"
#include "eyas/trainer/trace.hpp"
#include "group.hpp"
#include "placement.hpp"
#include "plan_training.hpp"
#include "sample_convention.hpp"
#include "train_arguments.hpp"
#include "training_run.hpp"

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
              "or srun started them, with --device cuda on a GPU each; --out is a directory that "
              "all of them see. Another number of "
              "processes may go on where they stopped, with as many samples a step in all") {
        a_.declare(app_);
    }

private:
    OrderedJson run() override {
        a_.draft.check();
        if (a_.draft.attention == "cudnn" && a_.options.loader.packed())
            throw ContractError("cuDNN does not attend within documents of a row",
                                "--attention cudnn with --pack-tokens", "Leave one of them out");
        raise_open_files();
        const TrainingGroup::Leave leave(group_);
        join_others();
        if (!a_.follow && !a_.manifest.empty() && a_.wait > 0 && !wait_for_producer()) return {};
        if (a_.store.consume_once && a_.options.loader.packed() && !a_.options.loader.drop_last &&
            a_.options.loader.world > 1)
            throw ContractError(
                "rows of packed samples come twice where they do not go round, and "
                "would be freed before",
                "--consume-once with --keep-last and --pack-tokens", "Leave out --keep-last");
        if (a_.store.consume_once && parse_store_uri(a_.store.uri).scheme == LocalFiles::scheme)
            throw ContractError("feature files where they lie are never removed", a_.store.uri,
                                "Leave out --consume-once, or ingest them into a store");
        a_.options.trainer.schedule.kind = schedule_from_name(a_.scheduler);
        a_.options.trainer.seed = a_.draft.seed;
        auto config = read_draft_config(a_.draft.config);
        if (!a_.init.empty()) {
            a_.init = weights_file(a_.init).string();
            a_.draft.require_embedding(a_.init);
        }
        const auto map = a_.draft.map_for(config, a_.init);
        if (a_.follow) {
            plan_memory(config, {});
            return follow(std::move(config), map);
        }
        const auto manifest = samples_of(a_.store, a_.manifest);
        train_on(convention_of_samples(manifest), config);
        if (a_.store.consume_once) require_removable(manifest);
        plan_memory(config, manifest);
        return a_.draft.with_model(config, map, [&](auto& model) {
            start_from(model);
            return with_store(a_.store, [&](auto& store) {
                return train(store, manifest, std::to_string(manifest.refs.size()), model);
            });
        });
    }

    /// Throws ContractError unless samples of this convention are what the draft, what it starts
    /// from and the target are for. What the run writes says it.
    void train_on(const std::optional<CaptureConvention>& c, ModelConfig& config) {
        convention_ = c;
        if (c) {
            require_captured_for(*c, config, a_.draft.config, a_.draft.target);
            if (!a_.init.empty())
                if (const auto from = config_beside(a_.init))
                    require_convention(*c, *from, a_.init);
            a_.options.trainer.identity["capture"] = convention_identity(*c);
        }
        record_convention(config, c);
    }

    /// Only rank 0 speaks; what goes wrong is said by all.
    void join_others() {
        group_.join(std::chrono::seconds(a_.peer_timeout), a_.draft.device);
        a_.draft.gpu = group_.gpu();
        const auto me = group_.member();
        is_root_ = me.is_root();
        a_.options.loader.rank = me.rank();
        a_.options.loader.world = me.world();
        if (!is_root_ && !std::freopen("/dev/null", "w", stdout))
            eyas::detail::throw_errno("cannot open", "/dev/null");
        if (me.world() > 1 && a_.draft.device == "cuda")
            std::printf("%d processes on a GPU each, joined by NCCL; rank 0 is on GPU %d\n",
                        me.world(), group_.gpu());
    }

    /// What must not differ between ranks: the options but those of this process or machine, the
    /// samples, the checkpoint to go on from.
    template <class Samples>
    void require_agreement(const Samples& samples, const HeldOut& held_out) const {
        if (group_.member().world() == 1) return;
        auto mine = configuration();
        for (const char* own :
             {"target", "draft-config", "vocab-map", "init", "store", "manifest", "wait",
              "eval-features", "watchdog", "out", "peer-timeout", "trace", "prefetch",
              "prefetch-threads", "memory-budget", "ring-bytes", "no-verify"})
            mine.erase(own);
        mine["samples"] = data_identity(samples, a_.options.loader).dump();
        mine["capture"] = convention_ ? convention_identity(*convention_).dump() : "";
        mine["held-out samples"] = held_out.identity();
        group_.require_same(mine);
    }

    /// Of --init; a run that goes on takes those of its checkpoint afterwards.
    template <class M>
    void start_from(M& model) const {
        if (a_.init.empty()) return;
        load_weights_into(model, a_.init);
        std::printf("starting from the weights of %s\n", a_.init.c_str());
    }

    /// Before anything is allocated.
    void plan_memory(const ModelConfig& config, const Manifest& manifest) {
        plan_ = plan_training(a_.draft, config, a_.options.loader, manifest,
                              is_root_ && copies_checkpoints(a_.options.trainer));
        plan_.require_within(a_.memory_budget);
        std::printf("memory plan, batches of up to %lld rows:\n%s",
                    static_cast<long long>(plan_.rows), plan_.text().c_str());
    }

    OrderedJson follow(ModelConfig config, const VocabMap& map) {
        a_.options.loader.shuffle = false;
        FollowedStream stream(
            a_.manifest, {.wait = std::chrono::seconds(a_.wait), .interrupt = &stop_requested()});
        std::fprintf(stderr, "following %s\n", a_.manifest.c_str());
        if (!stream.open()) return {};
        const std::atomic<bool> never{false};  // the first sample says how all were captured
        const auto first = stream.await(1, never);
        if (first == FollowedStream::Await::Interrupted) return {};
        if (first == FollowedStream::Await::There) {
            if (!convention_of(stream[0])) say_silent();
            train_on(convention_of(stream[0]), config);
        }
        return a_.draft.with_model(config, map, [&](auto& model) {
            start_from(model);
            return with_store(
                a_.store, [&](auto& store) { return train(store, stream, "a stream of", model); });
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
        const ManifestHandshake handshake{a_.manifest};
        std::fprintf(stderr, "waiting for %s\n", handshake.marker(".done").c_str());
        return handshake.wait(std::chrono::seconds(a_.wait), [] { return !stop_requested(); });
    }

    /// The account of the run's samples, where they are freed or come once.
    template <class Samples>
    std::unique_ptr<Ledger> open_ledger(const Samples& samples) {
        if (!a_.follow && !a_.store.consume_once) return nullptr;
        eyas::create_directories(a_.options.trainer.run_dir);
        const auto name = is_root_ ? std::string("ledger")
                                   : "ledger-rank-" + std::to_string(group_.member().rank());
        auto ledger = std::make_unique<Ledger>(a_.options.trainer.run_dir / (name + ".sqlite"),
                                               data_identity(samples, a_.options.loader).dump());
        a_.options.loader.acknowledgements = ledger.get();
        return ledger;
    }

    /// None where it was not asked for. trace.json of rank 0, trace-rank-1.json of rank 1.
    std::unique_ptr<TraceRecorder> open_trace() {
        if (a_.trace.empty()) return nullptr;
        const auto rank = group_.member().rank();
        const std::filesystem::path path(a_.trace);
        auto name = path.stem();
        if (rank > 0) name += "-rank-" + std::to_string(rank);
        name += path.extension();
        return std::make_unique<TraceRecorder>(path.parent_path() / name, rank);
    }

    void require_same_capture(const HeldOut& held_out) const {
        const auto theirs = held_out.convention();
        if (!theirs || !convention_) return;
        if (const auto d = difference(*convention_, *theirs))
            throw ContractError(
                "held-out samples were captured otherwise: " + *d + " (of the samples, held out)",
                a_.held_out, "Capture them as the samples to train on");
    }

    /// `samples`: a manifest or a stream; `count`: how many there are, in words.
    template <class S, class Samples, class M>
    OrderedJson train(S& store, Samples& samples, const std::string& count, M& model) {
        const HeldOut held_out(a_.held_out, a_.options.loader, a_.held_out_draft, a_.draft.target);
        require_same_capture(held_out);
        require_agreement(samples, held_out);
        group_.share_weights(model);
        const auto room = room_for_states(model.device(), store, samples);
        a_.options.loader.states = room.get();
        const auto ledger = open_ledger(samples);
        const auto ranges = profiler_ranges(a_.draft.device);
        const auto trace = open_trace();
        SpanListeners listeners;
        if (ranges) listeners.add(*ranges);
        if (trace) listeners.add(*trace);
        a_.options.trainer.trace = &listeners;
        auto result =
            TrainingRun(a_, group_, held_out, configuration(), plan_)(store, samples, count, model);
        if (trace) trace->close();
        if (const auto said = attention_text(model.device(), a_.draft.attention); !said.empty())
            std::printf("%s\n", said.c_str());
        group_.member().barrier();  // who leaves earlier is lost to those in a call
        result["ledger"] = {};
        if (ledger) {
            const auto s = ledger->summary();
            result["ledger"] = {{"acknowledged", s.acknowledged}, {"freed", s.freed}};
            std::printf("%lld samples acknowledged, %lld of them freed\n",
                        static_cast<long long>(s.acknowledged), static_cast<long long>(s.freed));
        }
        return result;
    }

    TrainArguments a_;
    TrainingGroup group_;
    bool is_root_ = true;
    MemoryPlan plan_;
    std::optional<CaptureConvention> convention_;  // of the samples
};

}  // namespace eyas::cli
