#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>

#include "eyas/capture/capture_directory.hpp"
#include "eyas/capture/feature_file.hpp"
#include "eyas/capture/generated_sequence.hpp"
#include "eyas/ingest/capture_done.hpp"
#include "eyas/ingest/put_sample.hpp"
#include "eyas/sample/stream_writer.hpp"

namespace eyas {

// Where the features of a rollout go: begin() says how many prompts there are, has() whether the
// features of an answer are there, take() gives them, finish() says that all are. An answer without
// supervised tokens has none. One thread each.

namespace detail {
inline bool teaches(const Conversation& c, std::int64_t max_len) {
    return supervised_tokens(c.loss_mask, max_len) > 0;
}
/// [1, T, width]
inline TensorView states_view(const std::vector<BFloat16>& rows, std::int64_t tokens) {
    return {reinterpret_cast<const std::byte*>(rows.data()),
            DType::BF16,
            {1, tokens, std::ssize(rows) / tokens}};
}
}  // namespace detail

/// No features are kept.
struct NoFeatures {
    static constexpr bool keeps_features = false;
    void begin(std::int64_t) {}
    bool has(const GeneratedSequence&) const { return true; }
    void take(const GeneratedSequence&) {}
    void finish() {}
};

/// The files that FeatureCapture writes over the finished text with a model of the same precision
/// and TargetOptions (in another form of the weights, last bits differ): answer i in
/// feature_file(out, i). What an earlier rollout left at the place of another answer is replaced,
/// or removed; features that are an answer's stay, also where `max_len` leaves it nothing
/// supervised. Nobody else writes into the directory while this one lives.
class FeatureFiles {
public:
    static constexpr bool keeps_features = true;

    /// Throws ContractError where the model does not capture three layers, or `out` is of another
    /// model, of other layers or in another precision; ResourceError where another capture or
    /// rollout writes into it.
    template <Device D, PrecisionPolicy P>
    FeatureFiles(const TargetModel<D, P>& model, std::filesystem::path out, std::int64_t max_len,
                 const TargetNames& names = {})
        : out_(std::move(out)),
          lock_(claim_capture_directory(model, names, out_)),
          width_(model.config().hidden_size),
          max_len_(max_len) {}

    /// Throws ContractError where `out` has files of more answers than to so many prompts.
    void begin(std::int64_t prompts) {
        detail::require_features_below(out_, prompts, "prompts'");
        std::filesystem::remove(capture_done_file(out_));
        files_ = 0;
    }
    bool has(const GeneratedSequence& s) {
        const auto c = s.conversation();
        const bool there = detail::holds_features_of(feature_file(out_, s.index), c, width_);
        files_ += there;
        return there || has_none(s, c);
    }
    void take(const GeneratedSequence& s) {
        const auto c = s.conversation();
        if (!detail::teaches(c, max_len_)) {
            has(s);
            return;
        }
        write_feature_file(feature_file(out_, s.index), c,
                           detail::states_view(s.states.captured, s.tokens()),
                           detail::states_view(s.states.last, s.tokens()));
        ++files_;
    }
    void finish() const { write_capture_done(out_, files_); }

private:
    /// Of an answer whose features are not there: whether it needs none.
    bool has_none(const GeneratedSequence& s, const Conversation& c) const {
        if (detail::teaches(c, max_len_)) return false;
        std::filesystem::remove(feature_file(out_, s.index));  // of another rollout
        return true;
    }

    std::filesystem::path out_;
    detail::DirectoryLock lock_;
    std::int64_t width_, max_len_;
    std::int64_t files_ = 0;  // that are complete
};

/// Samples of a store, told in a manifest stream as soon as the store has them: the id of answer i
/// is RUN:i whatever ended first. Each ref says how its features were captured. `store` is
/// borrowed.
template <class Sink>
class FeatureStore {
public:
    static constexpr bool keeps_features = true;

    /// Goes on with a stream that is there. Throws what the stream's writer does, ContractError
    /// where the model does not capture three layers (no stream is begun then), DataError where the
    /// stream's samples were captured otherwise.
    template <Device D, PrecisionPolicy P>
    FeatureStore(const TargetModel<D, P>& model, Sink& store, const std::filesystem::path& stream,
                 ManifestStreamWriter::Options writing, IngestOptions options,
                 const TargetNames& names = {})
        : store_(store),
          options_(captured_as(std::move(options), model, names)),
          writer_(stream, std::move(writing), [this](const SampleRef& r) { keep(r); }) {
        SampleRef mine;
        mine.sample_id = "of this rollout";
        tell_convention(mine, options_.convention);
        convention_(mine);
    }

    /// Throws ContractError where the stream tells samples of this run beyond so many prompts.
    void begin(std::int64_t prompts) const {
        const auto end = detail::sample_id(options_.run_id, static_cast<std::size_t>(prompts));
        for (auto it = refs_.lower_bound({end.size(), end}); it != refs_.end(); ++it)
            if (it->second.run_id == options_.run_id)
                throw ContractError("the stream tells more than these " + std::to_string(prompts) +
                                        " prompts' answers",
                                    writer_.path().string() + ": sample '" + it->first.second + "'",
                                    "Name another stream, or another run id");
    }
    /// Throws ContractError where the stream tells a sample of this id that is of other tokens, or
    /// does not say of which.
    bool has(const GeneratedSequence& s) const {
        return told(s) || !detail::teaches(s.conversation(), options_.max_len);
    }
    /// Throws what has() does.
    void take(const GeneratedSequence& s) {
        if (has(s)) return;
        const auto c = s.conversation();
        const NamedTensor tensors[] = {
            {std::string(feature::input_ids), detail::token_row(c.input_ids)},
            {std::string(feature::loss_mask), detail::token_row(c.loss_mask)},
            {std::string(feature::hidden_state), detail::states_view(s.states.last, s.tokens())},
            {std::string(feature::aux_hidden_state),
             detail::states_view(s.states.captured, s.tokens())}};
        const auto ref = put_sample(store_, options_, index(s), tensors);
        writer_.append(ref);
        keep(ref);
    }
    void finish() {
        if (!writer_.finished()) writer_.finish();
    }

    /// Of all answers so far, in the order of the prompts.
    Manifest manifest() const {
        Manifest m;
        for (const auto& [id, ref] : refs_) m.refs.push_back(ref);
        return m;
    }
    ManifestStreamWriter& stream() { return writer_; }

private:
    template <Device D, PrecisionPolicy P>
    static IngestOptions captured_as(IngestOptions options, const TargetModel<D, P>& model,
                                     const TargetNames& names) {
        require_three_layers(model);
        options.convention = capture_convention(model, names);
        return options;
    }
    /// An id alone does not say whose features those are: another rollout counts from 0, too.
    bool told(const GeneratedSequence& s) const {
        const auto id = detail::sample_id(options_.run_id, index(s));
        const auto ref = refs_.find({id.size(), id});
        if (ref == refs_.end()) return false;
        const auto& metadata = ref->second.metadata;
        const auto hash = metadata.find(token_hash_key);
        if (hash == metadata.end() || *hash != hex64(xxh3(std::as_bytes(std::span(s.input_ids)))))
            throw ContractError("the stream tells it already, of other tokens than this answer's",
                                writer_.path().string() + ": sample '" + id + "'",
                                "Name another stream, or another run id");
        return true;
    }
    static std::size_t index(const GeneratedSequence& s) {
        return static_cast<std::size_t>(s.index);
    }
    void keep(const SampleRef& r) {
        convention_(r);
        refs_.insert_or_assign({r.sample_id.size(), r.sample_id}, r);
    }

    Sink& store_;
    IngestOptions options_;
    std::map<std::pair<std::size_t, std::string>, SampleRef> refs_;  // shorter numbers come first
    CommonConvention convention_;
    ManifestStreamWriter writer_;  // last: its constructor fills refs_
};

}  // namespace eyas
