#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/core/running_sums.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/ingest/scan.hpp"
#include "eyas/ingest/validate.hpp"
#include "eyas/sample/manifest.hpp"
#include "eyas/store/concept.hpp"

namespace eyas {

/// The reference's names and defaults (SpecForge runtime/data_plane/disagg_ingest.py).
struct IngestOptions {
    std::string run_id = "disagg";
    std::string strategy = "eagle3";
    std::int64_t ttt_length = 7;
    std::int64_t max_len = 2048;                  // recorded; the stored sample is not cut
    std::optional<std::int64_t> vocab_size = {};  // V: refuse ids outside it
    std::optional<std::size_t> limit = {};        // take the first files only
    bool skip_bad = false;                        // leave bad files out instead of stopping
    // The files themselves become the store's, without a copy: only their headers, ids and masks
    // are read, so NaN and damage in states are found when they are (CRCs), not here.
    bool link = false;
};

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

/// One feature file, opened and found good. The views live as long as `file`.
struct CheckedSample {
    TorchFile file;
    std::vector<NamedTensor> tensors;  // in the order of feature::all
    FeatureLayout layout;
    Checksums checksums = {};  // of the tensors, taken while they were checked
};

inline CheckedSample open_checked(const std::filesystem::path& path, const IngestOptions& o,
                                  const std::optional<FeatureLayout>& first) {
    if (o.link && path.native().ends_with(".gz"))
        throw DataError("a compressed file cannot be linked", path.string(),
                        "Unpack it, or ingest without --link");
    TorchFile file(path, {.verify_crc = !o.link, .crc_by_reader = true});
    std::vector<NamedTensor> tensors;
    for (const auto name : feature::all)
        if (file.contains(name)) tensors.push_back({std::string(name), file.at(name)});
    std::map<std::string, RunningSums> sums;
    for (const auto& t : tensors)
        sums.emplace(t.name, RunningSums(true, file.expected_crcs().contains(t.name)));
    CheckedSample sample{file, tensors, {}, {}};
    try {
        sample.layout = validate_sample(
            tensors, {o.vocab_size, o.max_len, !o.link}, path.string(),
            [&](const NamedTensor& t, auto bytes) { sums.find(t.name)->second(bytes); });
    } catch (const DataError&) {
        if (!o.link) (void)TorchFile(path);  // damage is the reason to be told, if there is some
        throw;
    }
    for (const auto& [name, crc] : file.expected_crcs())
        if (const auto it = sums.find(name); it != sums.end() && it->second.crc32() != crc)
            throw DataError("the bytes do not match their CRC-32", path.string() + ": " + name,
                            "The file is damaged; capture the sample again");
    for (const auto& [name, s] : sums) sample.checksums[name] = s.xxh3();
    if (first) check_same_width(sample.layout, *first, path.string());
    return sample;
}

inline std::uint64_t bytes_of(const CheckedSample& s) {
    std::uint64_t bytes = 0;
    for (const auto& t : s.tensors) bytes += t.tensor.size_bytes();
    return bytes;
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
/// A file that cannot be read or is not a valid sample ends the call with its error and nothing
/// after it is touched (what was put before stays, it is complete); with skip_bad it is listed in
/// the report instead. Errors of the store (disk full, no permission) always end the call.
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
    for (std::size_t i = 0; i < files.size(); ++i) {
        std::optional<detail::CheckedSample> sample;
        try {
            sample = detail::open_checked(files[i], options, first);
        } catch (const Error& e) {
            if (!options.skip_bad) throw;
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
