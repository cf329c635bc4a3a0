#pragma once
#include "command.hpp"
#include "eyas/capture/feature_sinks.hpp"
#include "eyas/capture/rollout_job.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/ingest/handshake.hpp"
#include "stores.hpp"
#include "target_precision.hpp"

namespace eyas::cli {

class RolloutCommand : public Command {
public:
    explicit RolloutCommand(CLI::App& parent)
        : Command(
              parent, "rollout",
              "let the target model answer prompts, and keep the hidden states that it computes "
              "on the way: conversations, and their features without a second forward") {
        app_.add_option("--model", model_,
                        "Hugging Face directory of the target (config.json, model.safetensors)")
            ->required();
        app_.add_option("--prompts", prompts_,
                        "JSON lines {\"input_ids\": [...], \"id\": \"...\", \"repeat\": n}")
            ->required();
        app_.add_option("--out", out_,
                        "FILE.jsonl for the answers, in the order of the prompts; goes on where an "
                        "earlier run ended (FILE.part)")
            ->required();
        add_sampling();
        add_features();
    }

private:
    /// Takes what an earlier attempt left beside the manifest away, once this one is not refused.
    template <class S>
    struct AnnouncedStore : FeatureStore<S> {
        using FeatureStore<S>::FeatureStore;
        void begin(std::int64_t prompts) {
            FeatureStore<S>::begin(prompts);
            if (!handshake.manifest.empty()) handshake.begin();
            begun = true;
        }
        /// Who waits for the manifest or the stream is told; of another rollout's manifest nothing.
        void failed(const std::string& reason) {
            if (begun && !handshake.manifest.empty()) handshake.failed(reason);
            try {
                if (!this->stream().finished()) this->stream().fail(reason);
            } catch (const Error& e) {
                std::fprintf(stderr, "the failure was not marked: %s\n", e.what());
            }
        }
        ManifestHandshake handshake;
        bool begun = false;
    };

    void add_sampling() {
        app_.add_option("--temperature", options_.sampling.temperature,
                        "0: the most probable token")
            ->capture_default_str();
        app_.add_option("--top-p", options_.sampling.top_p,
                        "draw among the most probable tokens that together reach this")
            ->capture_default_str();
        app_.add_option("--seed", options_.sampling.seed, "of all draws")->capture_default_str();
        app_.add_option("--max-new-tokens", options_.max_new_tokens, "of an answer")
            ->capture_default_str();
        app_.add_option("--stop-ids", stop_ids_,
                        "tokens that end an answer (default: eos_token_id of the model's "
                        "generation_config.json or config.json)")
            ->delimiter(',');
        app_.add_option("--batch", options_.slots, "sequences that are decoded at once")
            ->capture_default_str();
        app_.add_option("--prefill-tokens", options_.prefill_tokens, "of prompts in a forward")
            ->capture_default_str();
        app_.add_option("--cache-tokens", options_.cache_tokens,
                        "of the KV cache (default 0: enough for the longest --batch requests)")
            ->check(CLI::NonNegativeNumber);
        precision_.declare(app_);
    }

    void add_features() {
        auto* features = app_.add_option(
            "--features", features_,
            "also write feature files (.ckpt), as eyas capture does; in float32 the last bits of "
            "states may differ, as weights that are exact in bfloat16 are held so here, which "
            "decodes faster");
        auto* store = app_.add_option(
            "--store", store_.uri,
            "also put features into disagg:DIR?store_id=NAME, or eyas+tcp://HOST:PORT of eyas "
            "serve");
        features->excludes(store);
        app_.add_option("--manifest", manifest_,
                        "with --store: where the manifest goes; FILE.done appears beside it at the "
                        "end")
            ->needs(store);
        app_.add_option("--stream", stream_,
                        "with --store: FILE.jsonl, to which each sample is added as soon as the "
                        "store has it (default MANIFEST.refs.jsonl)")
            ->needs(store);
        app_.add_option("--layers", layers_,
                        "three layers to capture, counted from 0 (default 1,N/2-1,N-4)")
            ->delimiter(',');
        app_.add_option("--run-id", ingest_.run_id, "with --store: first part of every sample id")
            ->capture_default_str();
        app_.add_option("--ttt-length", ingest_.ttt_length, "recorded in the refs")
            ->capture_default_str();
        app_.add_option("--max-len", ingest_.max_len,
                        "what training uses of a sample; one with nothing supervised in it has no "
                        "features")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
    }

    OrderedJson run() override {
        if (!store_.uri.empty() && manifest_.empty() && stream_.empty())
            throw ContractError("nothing tells the trainers", "--store",
                                "Add --manifest FILE or --stream FILE.jsonl");
        const HfWeights weights(model_);
        const auto prompts = read_prompts(prompts_, weights.config().vocab_size);
        options_.stop_ids = stop_ids_.empty() ? default_stop_ids(model_) : stop_ids_;
        options_.capture = !features_.empty() || !store_.uri.empty();
        options_.stop = &stop_requested();
        options_.check(weights.config().vocab_size);
        if (options_.capture && !layers_.empty()) require_three_layers(layers_);
        return precision_.with([&]<class P>(P) {
            TargetModel<Cpu, P> model(weights,
                                      {options_.capture ? layers_ : std::vector<std::int64_t>{0}});
            return roll_out(model, target_names(weights), prompts);
        });
    }

    template <class P>
    OrderedJson roll_out(TargetModel<Cpu, P>& model, const TargetNames& names,
                         const std::vector<Prompt>& prompts) {
        if (!features_.empty()) {
            FeatureFiles files(model, features_, ingest_.max_len, names);
            return answer(model, prompts, files);
        }
        if (!store_.uri.empty())
            return with_store(store_, [&](auto& s) { return put(model, names, prompts, s); });
        NoFeatures none;
        return answer(model, prompts, none);
    }

    template <class P, class S>
    OrderedJson put(TargetModel<Cpu, P>& model, const TargetNames& names,
                    const std::vector<Prompt>& prompts, S& store) {
        ingest_.vocab_size = model.config().vocab_size;
        AnnouncedStore<S> features(model, store,
                                   stream_.empty() ? manifest_ + ".refs.jsonl" : stream_,
                                   {.producer = "eyas rollout"}, ingest_, names);
        features.handshake.manifest = manifest_;
        try {
            auto result = answer(model, prompts, features);
            if (!manifest_.empty() && features.stream().finished()) {
                write_manifest(manifest_, features.manifest());
                features.handshake.done();
            }
            return result;
        } catch (const std::exception& e) {
            features.failed(e.what());
            throw;
        }
    }

    template <class P, class Sink>
    OrderedJson answer(TargetModel<Cpu, P>& model, const std::vector<Prompt>& prompts, Sink& sink) {
        Progress progress("rollout", std::ssize(prompts));
        const auto total = std::ssize(prompts);
        options_.on_step = [&](const RolloutReport& r) {
            progress.show(
                total - r.requests + r.finished(),
                "  " + std::to_string(static_cast<long>(r.tokens_per_second())) + " tokens/s");
        };
        const auto r = answer_prompts(model, std::span<const Prompt>(prompts), out_, options_, sink,
                                      ingest_.max_len);
        const auto& n = r.run;
        std::printf(
            "%lld prompts: %lld answered (%lld tokens in %s, %.0f tokens/s, %.1f sequences a "
            "step; %lld stopped, %lld cut), %lld were there%s\n",
            static_cast<long long>(total), static_cast<long long>(n.finished()),
            static_cast<long long>(n.generated_tokens), duration_text(n.seconds).c_str(),
            n.tokens_per_second(), n.mean_batch(), static_cast<long long>(n.stopped),
            static_cast<long long>(n.cut), static_cast<long long>(r.reused),
            r.stopped ? "; stopped early, run it again to go on" : "");
        if (options_.capture && r.statistics.unsupervised_samples > 0)
            std::printf("%lld answers have no supervised token and need no features\n",
                        static_cast<long long>(r.statistics.unsupervised_samples));
        return {{"out", out_},
                {"prompts", total},
                {"answered", n.finished()},
                {"reused", r.reused},
                {"prompt_tokens", n.prompt_tokens},
                {"generated_tokens", n.generated_tokens},
                {"stopped", n.stopped},
                {"cut", n.cut},
                {"steps", n.steps},
                {"mean_batch", n.mean_batch()},
                {"seconds", n.seconds},
                {"tokens_per_second", n.tokens_per_second()},
                {"statistics", r.statistics.to_json()}};
    }

    std::string model_, prompts_, out_, features_, manifest_, stream_;
    std::vector<std::int64_t> stop_ids_, layers_;
    StoreArguments store_;
    IngestOptions ingest_;
    RolloutOptions options_;
    TargetPrecision precision_;
};

}  // namespace eyas::cli
