#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "eyas/core/checksum.hpp"
#include "eyas/evaluate/evaluate.hpp"
#include "eyas/loader/loader.hpp"
#include "eyas/sample/manifest.hpp"
#include "eyas/trainer/trainer.hpp"

namespace eyas {

/// Everything that a run has besides store, manifest and model. `loader.seed` and `loader.epochs`
/// are taken from the trainer's, `loader.rank` and `loader.world` from its collective.
/// `loader.acknowledgements` (a Ledger, say) is told when the training of samples is durable.
struct PipelineOptions {
    TrainerOptions trainer;
    LoaderOptions loader;
};

namespace detail {
/// How batches are made of samples.
inline Json batches_identity(const LoaderOptions& o) {
    Json identity{{"batch_size", o.batch_size},
                  {"max_len", o.max_len},
                  {"shuffle", o.shuffle},
                  {"drop_last", o.drop_last}};
    if (o.packed()) identity["pack_tokens"] = o.pack_tokens;
    if (o.pad_to_multiple_of > 1) identity["pad_to_multiple_of"] = o.pad_to_multiple_of;
    return identity;
}
}  // namespace detail

/// What a resumed run must find again: the same samples in the same order, cut the same way.
/// Not where they lie nor under which run's name: a run may move from one store to another.
inline Json data_identity(const Manifest& manifest, const LoaderOptions& o) {
    std::string samples;
    for (const auto& ref : manifest.refs) {
        const auto prefix = ref.run_id + ":";
        const std::string_view id = ref.sample_id;
        samples += id.substr(id.starts_with(prefix) ? prefix.size() : 0);
        samples += " " + std::to_string(ref.num_tokens) + "\n";
    }
    auto identity = detail::batches_identity(o);
    identity["samples"] = manifest.refs.size();
    identity["order"] = hex64(xxh3(std::as_bytes(std::span(samples))));
    return identity;
}

/// The same of a stream, of which nothing but its id is known until it ends.
inline Json data_identity(const FollowedStream& stream, const LoaderOptions& o) {
    auto identity = detail::batches_identity(o);
    identity["stream"] = stream.header().stream_id;
    return identity;
}

/// The one assembly of a training run: store -> loader -> trainer(model). Colocated and
/// disaggregated runs differ in S alone, the trainer type T is the same, and they end with the same
/// bits. Store and model are the caller's and must outlive it; one thread drives it.
///
///   eyas::Pipeline pipeline(store, manifest, model, {.trainer = {.epochs = 2}});
///   pipeline.run();
template <SampleSource S, class T>
class Pipeline {
public:
    using store_type = S;
    using trainer_type = T;
    using model_type = typename T::model_type;
    using collective_type = typename T::collective_type;
    using loader_type = Loader<S>;

    /// Throws ContractError or DataError for options, manifest and model that do not fit together.
    /// No tensor is read yet.
    Pipeline(S& store, const Manifest& manifest, model_type& model, PipelineOptions options = {},
             collective_type collective = collective_type())
        : store_(store),
          options_(complete(std::move(options), manifest, model, collective)),
          loader_(store, manifest, options_.loader),
          trainer_(model, options_.trainer, std::move(collective)) {}

    /// Trains on a stream while it grows, in the order in which its refs come: `loader.shuffle`
    /// must be false and `trainer.epochs` 1 (ContractError). The stream was opened, and outlives
    /// the pipeline.
    Pipeline(S& store, FollowedStream& stream, model_type& model, PipelineOptions options = {},
             collective_type collective = collective_type())
        : store_(store),
          options_(complete(std::move(options), stream, model, collective)),
          loader_(store, stream, options_.loader),
          trainer_(model, options_.trainer, std::move(collective)) {}

    /// Trains; see Trainer::run for resume, errors and the result. ResourceError when all is done
    /// but consumed samples cannot be removed.
    TrainResult run(const TrainerCallbacks& callbacks = {}) {
        auto result = trainer_.run(loader_, callbacks);
        if constexpr (requires { store_.drain(); }) store_.drain();
        return result;
    }

    /// Held-out figures of the model as it is now, over all samples of another manifest in the same
    /// store, which are not packed. None of them is consumed.
    Evaluation evaluate(const Manifest& held_out, const EvaluateOptions& options = {}) {
        Loader<S> loader(store_, held_out, held_out_options(options_.loader));
        return eyas::evaluate(trainer_.model(), loader, options);
    }

    trainer_type& trainer() { return trainer_; }
    loader_type& loader() { return loader_; }

private:
    template <class Samples>
    static PipelineOptions complete(PipelineOptions o, const Samples& samples,
                                    const model_type& model, const collective_type& collective) {
        o.loader.seed = o.trainer.seed;
        o.loader.epochs = o.trainer.epochs;
        o.loader.rank = collective.rank();
        o.loader.world = collective.world();
        o.trainer.identity["data"] = data_identity(samples, o.loader);
        if constexpr (requires { Json(model.options()); })
            o.trainer.identity["model"] = Json(model.options());
        return o;
    }

    S& store_;
    PipelineOptions options_;
    loader_type loader_;
    trainer_type trainer_;
};

template <class S, class M>
Pipeline(S&, const Manifest&, M&) -> Pipeline<S, Trainer<M>>;
template <class S, class M>
Pipeline(S&, const Manifest&, M&, PipelineOptions) -> Pipeline<S, Trainer<M>>;
template <class S, class M>
Pipeline(S&, FollowedStream&, M&) -> Pipeline<S, Trainer<M>>;
template <class S, class M>
Pipeline(S&, FollowedStream&, M&, PipelineOptions) -> Pipeline<S, Trainer<M>>;

}  // namespace eyas
