#pragma once
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "evaluation_text.hpp"
#include "eyas/capture/capture_directory.hpp"
#include "eyas/capture/conversations.hpp"
#include "eyas/capture/prompts.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/core/stop_signals.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/evaluate/speculative_decoder.hpp"
#include "target_precision.hpp"

namespace eyas::cli {

/// Real decoding of held-out prompts with target and draft, beside plain decoding.
class DecodeEvaluation {
public:
    /// Returns the option that asks for it.
    CLI::Option* declare(CLI::App& app) {
        auto* wanted =
            app.add_option("--conversations", conversations_,
                           "answer the prompts of these conversations (JSON lines {\"input_ids\", "
                           "\"loss_mask\"}; a prompt ends where the mask begins) by speculative "
                           "decoding, instead of evaluating a store");
        app.add_option(
               "--draft", shape_,
               "what the draft proposes: chain:DEPTH, tree:W1,W2,... or "
               "dynamic:DEPTH,TOP_K,TOTAL (EAGLE-2); chain:5@0.3 goes on from tokens only that "
               "the draft gives a probability of 0.3 or more")
            ->capture_default_str();
        app.add_option("--temperature", options_.sampling.temperature, "0: greedy")
            ->capture_default_str();
        app.add_option("--top-p", options_.sampling.top_p, "nucleus sampling; 1: all tokens")
            ->capture_default_str();
        app.add_option("--sampling-seed", options_.sampling.seed, "of the random numbers")
            ->capture_default_str();
        app.add_flag("--rejection", rejection_,
                     "accept by rejection sampling instead of exact match; chains only, texts then "
                     "differ from plain decoding but are distributed alike");
        app.add_option("--max-new-tokens", options_.max_new_tokens, "of an answer")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
        app.add_option("--sequences", options_.sequences, "texts decoded side by side")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
        app.add_option("--prompts", most_, "at most so many; 0: all")
            ->capture_default_str()
            ->check(CLI::NonNegativeNumber);
        app.add_option(
               "--layers", layers_,
               "three layers of the target that the draft reads (default: those that it was "
               "trained on, else 1,N/2-1,N-4)")
            ->delimiter(',');
        app.add_option("--stop-ids", options_.stop_ids,
                       "tokens that end an answer (default: eos_token_id of the target's "
                       "generation_config.json or config.json)")
            ->delimiter(',');
        precision_.declare(app)->needs(wanted);
        return wanted;
    }

    bool wanted() const { return !conversations_.empty(); }

    /// First of all, before anything is read. Throws ContractError for options that are out of
    /// range, or do not go together.
    void check() {
        options_.shape = parse_draft_shape(shape_);
        options_.verification = rejection_ ? Verification::Rejection : Verification::Match;
        options_.check();
    }

    /// Reads the prompts, before any weights are. `own_layers`: those that the draft reads, where
    /// something says so. Throws ContractError for other --layers, or not three, and for stop
    /// tokens that the target does not have; DataError that names file and line for a prompt that
    /// leaves no position to decode.
    void prepare(const HfWeights& target, const ModelConfig& draft,
                 const std::optional<std::vector<std::int64_t>>& own_layers) {
        const auto own = own_layers.value_or(layers_);
        if (layers_.empty()) layers_ = own;
        if (layers_ != own)
            throw ContractError("the draft reads other layers: " + Json(own).dump(),
                                "--layers " + Json(layers_).dump(), "Leave out --layers");
        if (!layers_.empty()) require_three_layers(layers_);
        const bool given = !options_.stop_ids.empty();
        if (!given) options_.stop_ids = default_stop_ids(target.path());
        require_stop_ids(options_.stop_ids, target.config().vocab_size,
                         given ? "--stop-ids" : target.path().string() + ", eos_token_id");
        prompts_ = read_prompts(target.config(), draft);
    }

    /// `trained_on`: the convention of the features that the draft was trained on, where that is
    /// known. Its weights are rounded to bfloat16, as an engine has them. Throws ContractError for
    /// another target.
    OrderedJson run(const HfWeights& target_weights,
                    const std::optional<CaptureConvention>& trained_on,
                    const ModelConfig& draft_config, const VocabMap& map,
                    std::span<const NamedTensor> draft_weights) {
        options_.stop = &stop_requested();
        const auto rounded = in_bfloat16(draft_weights);
        return precision_.with([&]<class P>(P) {
            TargetModel<Cpu, P> target(target_weights, {layers_});
            require_trained_on(trained_on, capture_convention(target, target_names(target_weights)),
                               target_weights);
            return both_ways(target, draft_config, map, rounded.views);
        });
    }

private:
    /// A draft may decode with its target in either precision.
    static void require_trained_on(const std::optional<CaptureConvention>& trained_on,
                                   CaptureConvention now, const HfWeights& target) {
        if (!trained_on) return;
        now.precision = trained_on->precision;
        if (const auto d = difference(*trained_on, now))
            throw ContractError("the draft was trained on features captured otherwise: " + *d +
                                    " (trained on, now)",
                                target.path().string(),
                                "Name the draft's own target, and no other --layers");
    }

    template <class P>
    OrderedJson both_ways(TargetModel<Cpu, P>& target, const ModelConfig& draft_config,
                          const VocabMap& map, std::span<const NamedTensor> draft_weights) {
        DraftDecoder<Cpu> draft(draft_config, map, draft_weights, target.embedding());
        auto plain_options = options_;
        plain_options.shape = DraftShape::none();
        plain_options.verification = Verification::Match;
        const auto plain = decode("plain", target, draft, plain_options);
        const auto drafted = decode("drafts", target, draft, options_);
        if (stop_requested()) return {};
        return told(plain, drafted);
    }

    struct Decoded {
        std::vector<std::vector<std::int64_t>> texts;
        Acceptance acceptance;
        std::int64_t tokens = 0;
        double seconds = 0;

        double rate() const { return static_cast<double>(tokens) / std::max(seconds, 1e-9); }
    };

    struct Rounded {
        std::vector<Tensor> tensors;
        std::vector<NamedTensor> views;
    };
    static Rounded in_bfloat16(std::span<const NamedTensor> weights) {
        Rounded r;
        for (const auto& w : weights) {
            if (w.tensor.dtype != DType::F32) continue;  // vocabulary map, or rounded already
            r.tensors.emplace_back(DType::BF16, w.tensor.shape);
            convert_into(w.tensor, r.tensors.back().mutable_view());
            r.views.push_back({w.name, r.tensors.back().view()});
        }
        for (const auto& w : weights)
            if (w.tensor.dtype == DType::BF16) r.views.push_back(w);
        return r;
    }

    /// What comes before each conversation's first supervised token; how long the rest is does not
    /// matter.
    std::vector<std::vector<std::int64_t>> read_prompts(const ModelConfig& target,
                                                        const ModelConfig& draft) const {
        const auto positions = decodable_positions(target, draft);
        std::vector<std::vector<std::int64_t>> prompts;
        eyas::detail::for_each_line(conversations_, [&](auto line, const std::string& where) {
            auto c =
                eyas::detail::parse_conversation(line, {.vocab_size = target.vocab_size}, where);
            if (most_ > 0 && std::ssize(prompts) >= most_) return;
            const auto end = std::ranges::find(c.loss_mask, 1);
            c.input_ids.resize(static_cast<std::size_t>(end - c.loss_mask.begin()));
            if (c.tokens() >= positions)
                throw DataError("a prompt of " + std::to_string(c.tokens()) + " tokens", where,
                                "Shorten it, or leave it out: target and draft have " +
                                    std::to_string(positions) + " positions for prompt and answer");
            if (!c.input_ids.empty()) prompts.push_back(std::move(c.input_ids));
        });
        if (prompts.empty())
            throw DataError("no conversation has a prompt", conversations_,
                            "Mark answers with loss_mask 1 and prompts with 0");
        return prompts;
    }

    template <class P>
    Decoded decode(const char* what, TargetModel<Cpu, P>& target, DraftDecoder<Cpu>& draft,
                   const SpeculativeOptions& options) const {
        Decoded d;
        d.texts.resize(prompts_.size());
        SpeculativeDecoder<Cpu, P> decoder(target, draft, options);
        Progress progress(what, std::ssize(prompts_));
        std::int64_t done = 0;
        const auto begin = std::chrono::steady_clock::now();
        d.acceptance = decoder.run(prompts_, [&](const DecodedText& text) {
            d.texts[text.index] = text.input_ids;
            d.tokens += std::ssize(text.input_ids) - text.prompt_tokens;
            progress.show(++done);
        });
        d.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        return d;
    }

    OrderedJson told(const Decoded& plain, const Decoded& drafted) const {
        const auto prompts = prompts_.size();
        std::size_t equal = 0;
        for (std::size_t i = 0; i < prompts; ++i) equal += plain.texts[i] == drafted.texts[i];
        const double speed_up = drafted.rate() / std::max(plain.rate(), 1e-9);
        std::vector<double> rates;
        for (std::size_t i = 0; i < drafted.acceptance.proposed.size(); ++i)
            rates.push_back(drafted.acceptance.rate(i));
        std::printf(
            "%zu prompts, %s: acceptance length %s (accepted at depth %s)\n"
            "%.1f tokens/s, plain decoding %.1f tokens/s: %.2fx; %zu of %zu texts are plain "
            "decoding's\n",
            prompts, shape_.c_str(), length_text(drafted.acceptance).c_str(),
            rates_text(rates).c_str(), drafted.rate(), plain.rate(), speed_up, equal, prompts);
        OrderedJson j{
            {"prompts", prompts}, {"draft", shape_}, {"target_precision", precision_.name}};
        put_acceptance(drafted.acceptance, j);
        j["tokens_per_second"] = drafted.rate();
        j["plain_tokens_per_second"] = plain.rate();
        j["speed_up"] = speed_up;
        j["equal_texts"] = equal;
        return j;
    }

    std::string conversations_, shape_ = "chain:4";
    SpeculativeOptions options_;
    TargetPrecision precision_;
    std::vector<std::int64_t> layers_;
    std::vector<std::vector<std::int64_t>> prompts_;
    bool rejection_ = false;
    std::int64_t most_ = 0;
};

}  // namespace eyas::cli
