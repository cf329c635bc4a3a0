#pragma once
#include "checkpoints.hpp"
#include "command.hpp"
#include "decode_evaluation.hpp"
#include "draft.hpp"
#include "evaluation_text.hpp"
#include "eyas/checkpoint/on_host.hpp"
#include "eyas/format/safetensors.hpp"
#include "eyas/loader/loader.hpp"
#include "held_out.hpp"
#include "sample_convention.hpp"
#include "stores.hpp"

namespace eyas::cli {

class EvalCommand : public Command {
public:
    explicit EvalCommand(CLI::App& parent)
        : Command(
              parent, "eval",
              "held-out loss, accuracy and acceptance of a checkpoint, or of untrained weights; "
              "with --conversations by answering their prompts with target and draft") {
        draft_.declare(app_, false);
        app_.add_option("--checkpoint", checkpoint_,
                        "checkpoint directory, a run directory (its newest), or a draft that was "
                        "exported here or by another program; absent: untrained weights of --seed");
        auto* store = app_.add_option("--store", store_.uri,
                                      "file:DIR, disagg:DIR?store_id=NAME or packed:DIR");
        app_.add_option("--manifest", manifest_,
                        "samples; for file:DIR and packed:DIR all of the directory where absent");
        app_.add_option("--eval-draft", replay_,
                        "drafts whose acceptance length is measured by decoding along the "
                        "samples; none: not")
            ->capture_default_str();
        decoding_.declare(app_)->excludes(store);
        app_.add_option("--batch-size", loader_.batch_size, "samples a batch")
            ->capture_default_str();
        app_.add_option("--max-len", loader_.max_len, "cut samples to so many tokens")
            ->capture_default_str();
    }

private:
    OrderedJson run() override {
        draft_.check();
        if (replay_ != "none") replay_shape_ = parse_draft_shape(replay_);
        if (decoding_.wanted()) check_decoding();
        std::string weights;
        if (!checkpoint_.empty()) weights = weights_file(checkpoint_).string();
        const auto dir = std::filesystem::path(weights).parent_path();
        if (weights.empty() && draft_.config.empty())
            throw ContractError("neither --checkpoint nor --draft-config is given", "eval",
                                "Name a checkpoint, or the config of an untrained draft");
        const auto config_file = weights.empty() ? draft_.config : (dir / "config.json").string();
        const auto config = read_draft_config(config_file);
        const auto map = draft_.map_for(config, weights);
        if (decoding_.wanted()) return decode(config, map, weights);
        if (store_.uri.empty())
            throw ContractError("neither --store nor --conversations is given", "eval",
                                "Name the samples, or conversations whose prompts are answered");
        const auto manifest = samples_of(store_, manifest_);
        if (const auto c = convention_of_samples(manifest))
            require_captured_for(*c, config, config_file, draft_.target);
        loader_.shuffle = loader_.drop_last = false;
        return with_draft(config, map, weights, [&](auto& model) {
            return with_store(
                store_, [&](auto& store) { return evaluate_all(store, manifest, model, dir); });
        });
    }

    void check_decoding() {
        decoding_.check();
        if (draft_.attention != "strips")
            throw ContractError("texts are decoded by the host, which has its own attention",
                                "--attention " + draft_.attention + " with --conversations",
                                "Leave out --attention");
    }

    OrderedJson decode(const ModelConfig& config, const VocabMap& map, const std::string& weights) {
        const HfWeights target(draft_.target);
        const auto convention = recorded_convention(config, weights);
        decoding_.prepare(target, config,
                          convention ? std::optional(convention->layers)
                                     : configured_layers(config.source, weights));
        return with_draft(config, map, weights, [&](auto& model) {
            const auto host = eyas::detail::weights_on_host(model);
            const auto content = host.content();
            return decoding_.run(target, convention, config, map,
                                 draft_tensors(content.parameters, content.vocab_map));
        });
    }

    /// f(model) of the draft in `weights`; where none are named, of an untrained one.
    template <class F>
    OrderedJson with_draft(const ModelConfig& config, const VocabMap& map,
                           const std::string& weights, const F& f) const {
        if (!weights.empty()) draft_.require_embedding(weights);
        return draft_.with_model(config, map, [&](auto& model) {
            if (!weights.empty()) load_weights_into(model, weights);
            return f(model);
        });
    }

    template <class S, class M>
    OrderedJson evaluate_all(S& store, const Manifest& manifest, M& model,
                             const std::filesystem::path& dir) {
        Loader<S> loader(store, manifest, loader_);
        Progress progress("eval", loader.batches_per_epoch());
        auto e = eyas::evaluate(model, loader,
                                {.on_progress = [&](std::int64_t done) { progress.show(done); }});
        if (replay_shape_) {
            const HfWeights target(draft_.target);
            Loader<S> again(store, manifest, loader_);
            e.decoded = decode_along(model, again, *replay_shape_, target);
        }
        std::printf("%s on %lld samples: %s  expected tokens per target pass %.3f\n",
                    dir.empty() ? "untrained draft" : dir.c_str(),
                    static_cast<long long>(e.samples), evaluation_text(e).c_str(),
                    e.expected_tokens_per_pass());
        auto j = evaluation_json(e);
        j["checkpoint"] = dir.string();
        return j;
    }

    DraftArguments draft_;
    StoreArguments store_;
    LoaderOptions loader_;
    DecodeEvaluation decoding_;
    std::string checkpoint_, manifest_, replay_ = "chain:5";
    std::optional<DraftShape> replay_shape_;
};

}  // namespace eyas::cli
