#pragma once
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "eyas/checkpoint/on_host.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/evaluate/evaluate.hpp"
#include "eyas/evaluate/replay.hpp"
#include "eyas/loader/loader.hpp"
#include "eyas/model/frozen_target.hpp"
#include "eyas/pipeline/pipeline.hpp"
#include "eyas/trainer/agreement.hpp"
#include "stores.hpp"

namespace eyas::cli {

/// Acceptance length of the model's weights as they are now, by decoding along samples.
template <class M, class L>
Acceptance decode_along(M& model, L& loader, const DraftShape& shape, const HfWeights& target) {
    const auto host = eyas::detail::weights_on_host(model);
    const auto content = host.content();
    DraftDecoder<Cpu> draft(model.config(), model.vocab_map(),
                            draft_tensors(content.parameters, content.vocab_map),
                            FrozenTarget::of(target).embed_tokens);
    Replay<Cpu> replay(draft, shape);
    while (const Batch* batch = loader.next()) replay.add(*batch);
    return replay.finish();
}

/// Held-out samples: feature files beside the trainer, whatever its store.
class HeldOut {
public:
    /// `directory` "": none. `training`: of the samples that are trained on. They are evaluated one
    /// by one, so that figures depend neither on the batch size nor on the number of ranks.
    /// `draft`: the shape of drafts whose acceptance length is measured, "none" for no such
    /// measurement; `target` is the model's directory. Throws when there is no good sample: at the
    /// start, not after an hour.
    HeldOut(const std::string& directory, const LoaderOptions& training, const std::string& draft,
            const std::string& target)
        : directory_(directory), options_(held_out_options(training)) {
        options_.batch_size = 1;
        if (directory.empty()) return;
        samples_ = scan_features(directory);
        if (draft != "none") {
            shape_ = parse_draft_shape(draft);
            target_.emplace(target);
        }
        with(samples_, [](auto&) {});
    }

    /// What they say of how they were captured.
    std::optional<CaptureConvention> convention() const {
        return any() ? convention_of(samples_.refs.front()) : std::nullopt;
    }
    bool any() const { return !samples_.refs.empty(); }
    /// Of which samples there are.
    std::string identity() const { return data_identity(samples_, options_).dump(); }

    /// Of all of them, the same on every rank, which must have the same ones: each evaluates its
    /// share, where there is one for each, and all hear the sums. When one fails, all throw.
    template <class M, class C>
    Evaluation evaluate(M& model, C collective) const {
        const auto world = static_cast<std::size_t>(collective.world());
        const bool shared = world > 1 && samples_.refs.size() >= world;
        Manifest mine = samples_;
        if (shared) {
            mine.refs.clear();
            for (auto i = static_cast<std::size_t>(collective.rank()); i < samples_.refs.size();
                 i += world)
                mine.refs.push_back(samples_.refs[i]);
        }
        Evaluation e;
        eyas::detail::all_or_none<DataError>(
            collective, "another rank could not evaluate its held-out samples", directory_, [&] {
                with(mine, [&](auto& loader) { e = eyas::evaluate(model, loader); });
                if (shape_)
                    with(mine, [&](auto& loader) {
                        e.decoded = decode_along(model, loader, *shape_, *target_);
                    });
            });
        if (shared) {
            if (shape_) {
                auto counts = e.decoded.packed(shape_->widths.size());
                collective.all_reduce(std::span<double>(counts));
                e.decoded.unpack(counts);
            }
            const auto decoded = e.decoded;
            static_cast<MetricTotals&>(e) = eyas::detail::over_ranks(collective, std::move(e));
            e.samples = static_cast<std::int64_t>(samples_.refs.size());
            e.decoded = decoded;
        }
        return e;
    }

private:
    template <class F>
    void with(const Manifest& samples, F&& f) const {
        Store<LocalFiles> store(local_files_options(parse_store_uri("file:" + directory_)));
        Loader loader(store, samples, options_);
        f(loader);
    }

    std::string directory_;
    LoaderOptions options_;
    Manifest samples_;
    std::optional<DraftShape> shape_;
    std::optional<HfWeights> target_;  // its embedding is the draft's
};

}  // namespace eyas::cli
