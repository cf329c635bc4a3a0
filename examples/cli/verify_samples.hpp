#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "eyas/capture/conversations.hpp"
#include "eyas/capture/target_model.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/evaluate/check_batches.hpp"
#include "eyas/loader/loader.hpp"
#include "sample_convention.hpp"
#include "stores.hpp"

namespace eyas::cli {

/// On what an exported draft is compared with its checkpoint: samples of a store, conversations
/// that the target is run over, or where neither is named random states.
struct VerifySamples {
    StoreArguments store;
    std::string manifest, prompts;
    std::int64_t count = 4, max_len = 256;

    void declare(CLI::App& app) {
        app.add_option("--samples", count, "to compare logits on")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
        auto* from = app.add_option("--store", store.uri, "that they come from; see eyas train");
        app.add_option("--manifest", manifest, "of the store's samples")->needs(from);
        app.add_option("--prompts", prompts,
                       "or conversations, as of eyas capture, that the target is run over; where "
                       "neither is named, random states are compared on")
            ->excludes(from);
        app.add_option("--max-len", max_len, "cut them to so many tokens")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
    }

    std::string source() const {
        if (!store.uri.empty()) return "samples of " + store.uri;
        return prompts.empty() ? "random states" : "the target's states of " + prompts;
    }

    /// Calls f(next), where next() gives one batch after the other, then nullptr. Throws what the
    /// store or the target throw, and ContractError for samples that the draft is not for.
    template <class F>
    void each(const ModelConfig& draft, const HfWeights& target, F&& f) const {
        if (!store.uri.empty()) return from_store(draft, f);
        std::int64_t done = 0;
        std::unique_ptr<OwnedBatch> batch;
        if (prompts.empty())
            return f([&]() -> const Batch* {
                if (done++ == count) return nullptr;
                batch = random_states(
                    draft,
                    std::min(max_len, std::max<std::int64_t>(1, draft.max_position_embeddings - 8)),
                    static_cast<std::uint64_t>(done));
                return &batch->batch();
            });
        const auto convention = recorded_convention(draft, "checkpoint");
        const auto conversations = read_conversations(
            prompts, {max_len, target.config().vocab_size, longest_sequence(target.config())});
        TargetModel<Cpu> model(target, {convention ? convention->layers
                                                   : configured_layers(draft.source, "checkpoint")
                                                         .value_or(std::vector<std::int64_t>())});
        f([&]() -> const Batch* {
            if (done == std::min(count, static_cast<std::int64_t>(conversations.size())))
                return nullptr;
            const auto& ids = conversations[static_cast<std::size_t>(done++)].input_ids;
            const auto states = model.forward(ids);
            batch = std::make_unique<OwnedBatch>(ids, states.captured.view(),
                                                 target.config().hidden_size);
            return &batch->batch();
        });
    }

private:
    template <class F>
    void from_store(const ModelConfig& draft, const F& f) const {
        auto samples = samples_of(store, manifest);
        if (const auto c = convention_of_samples(samples))
            require_convention(*c, draft, "the checkpoint");
        if (samples.refs.size() > static_cast<std::size_t>(count))
            samples.refs.resize(static_cast<std::size_t>(count));
        LoaderOptions options;
        options.max_len = max_len;
        options.shuffle = options.drop_last = false;
        with_store(store, [&](auto& opened) {
            Loader loader(opened, samples, options);
            f([&] { return loader.next(); });
        });
    }
};

}  // namespace eyas::cli
