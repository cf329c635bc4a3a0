#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <utility>

#include "eyas/evaluate/evaluate.hpp"
#include "eyas/loader/loader.hpp"
#include "eyas/pipeline/pipeline.hpp"
#include "eyas/trainer/agreement.hpp"
#include "stores.hpp"

namespace eyas::cli {

/// Held-out samples: feature files beside the trainer, whatever its store.
class HeldOut {
public:
    /// `directory` "": none. `training`: of the samples that are trained on. They are evaluated one
    /// by one, so that figures depend neither on the batch size nor on the number of ranks. Throws
    /// when there is no good sample: at the start, not after an hour.
    HeldOut(const std::string& directory, const LoaderOptions& training)
        : directory_(directory), options_(held_out_options(training)) {
        options_.batch_size = 1;
        if (directory.empty()) return;
        samples_ = scan_features(directory);
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
            collective, "another rank could not evaluate its held-out samples", directory_,
            [&] { with(mine, [&](auto& loader) { e = eyas::evaluate(model, loader); }); });
        if (shared) {
            static_cast<MetricTotals&>(e) = eyas::detail::over_ranks(collective, std::move(e));
            e.samples = static_cast<std::int64_t>(samples_.refs.size());
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
};

}  // namespace eyas::cli
