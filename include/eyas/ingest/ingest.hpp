#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/ingest/check_ahead.hpp"
#include "eyas/ingest/checked_sample.hpp"
#include "eyas/ingest/scan.hpp"
#include "eyas/sample/manifest.hpp"
#include "eyas/store/concept.hpp"

namespace eyas {

/// A file that was left out, and why.
struct BadFile {
    std::filesystem::path path;
    std::string error;
};

/// After each file.
struct IngestProgress {
    std::size_t done = 0;  // files looked at, of `total`
    std::size_t total = 0;
    std::size_t bad = 0;
    std::uint64_t bytes = 0;         // of tensors put into the store so far
    const SampleRef* ref = nullptr;  // of this file; nullptr when it was left out
};

struct IngestReport {
    Manifest manifest;
    std::vector<BadFile> bad = {};
    std::uint64_t bytes = 0;
};

namespace detail {

inline SampleRef ref_prototype(const IngestOptions& o, std::size_t index, std::int64_t rows) {
    SampleRef ref;
    ref.sample_id = sample_id(o.run_id, index);
    ref.run_id = o.run_id;
    ref.strategy = o.strategy;
    ref.num_tokens = rows;
    ref.metadata["run_id"] = o.run_id;
    ref.metadata["strategy"] = o.strategy;
    ref.metadata["format"] = "offline_" + o.strategy;
    ref.metadata["target_repr"] = "hidden_state";
    ref.metadata["ttt_length"] = o.ttt_length;
    ref.metadata["max_len"] = o.max_len;
    ref.metadata["file_index"] = index;
    return ref;
}

template <class Sink>
SampleRef put_or_adopt(Sink& store, SampleRef ref, const CheckedSample& s, bool link) {
    const std::span<const NamedTensor> tensors(s.tensors);
    if (!link) return store.put(std::move(ref), tensors, {.known = &s.checksums});
    const AdoptedFile file{s.file.path(), s.file.descriptor()};
    if constexpr (requires { store.adopt(ref, tensors, file); })
        return store.adopt(std::move(ref), tensors, file);
    else
        throw ContractError("this store cannot take files without a copy", "ingest",
                            "Use disagg:DIR on the files' own file system, or leave --link out");
}

}  // namespace detail

/// Puts the feature files of a directory into a store, one sample a file, verbatim. Sample ids come
/// from the file's index in feature_files(), so they do not depend on what is left out.
///
/// Files are checked on a thread of its own, one ahead of those that are put, in their order.
///
/// A file that cannot be read or is not a valid sample ends the call with its error and nothing
/// after it is put (what was put before stays, it is complete); with skip_bad it is listed in the
/// report instead. Errors of the store (disk full, no permission) always end the call.
/// `progress` runs on the calling thread after each file. `Sink` offers
/// `SampleRef put(SampleRef, std::span<const NamedTensor>, GivenChecksums)`, as Store<Backend>
/// does, and for `link` its adopt(); ContractError where it has none.
template <class Sink>
IngestReport ingest(Sink& store, const std::filesystem::path& dir,
                    const IngestOptions& options = {},
                    const std::function<void(const IngestProgress&)>& progress = {}) {
    auto files = feature_files(dir);
    if (options.limit && files.size() > *options.limit) files.resize(*options.limit);
    IngestReport report;
    std::optional<FeatureLayout> first;
    detail::CheckAhead checked(files, options);
    for (std::size_t i = 0; i < files.size(); ++i) {
        std::optional<detail::CheckedSample> sample;
        try {
            sample = checked.next();
            if (first) check_same_width(sample->layout, *first, files[i].string());
        } catch (const Error& e) {
            if (!options.skip_bad) throw;
            sample.reset();
            report.bad.push_back({files[i], e.what()});
        }
        if (sample) {
            first = sample->layout;
            report.bytes += detail::bytes_of(*sample);
            report.manifest.refs.push_back(
                detail::put_or_adopt(store, detail::ref_prototype(options, i, sample->layout.rows),
                                     *sample, options.link));
        }
        if (progress)
            progress({i + 1, files.size(), report.bad.size(), report.bytes,
                      sample ? &report.manifest.refs.back() : nullptr});
    }
    return report;
}

}  // namespace eyas
