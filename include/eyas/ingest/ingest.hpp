#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/ingest/put_ahead.hpp"
#include "eyas/ingest/scan.hpp"
#include "eyas/sample/manifest.hpp"

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

/// Puts the feature files of a directory into a store, one sample a file, verbatim. Sample ids come
/// from the file's index in feature_files(), so they do not depend on what is left out.
///
/// Files are checked in their order on a thread of its own, ahead of the `put_threads` that put
/// them.
///
/// A file that cannot be read or is not a valid sample ends the call with its error and nothing
/// after it is put (what was put before stays, it is complete); with skip_bad it is listed in the
/// report instead. Errors of the store (disk full, no permission) always end the call; samples that
/// other threads were putting just then may be in the store without being in the manifest.
/// `progress` runs on the calling thread after each file. `Sink` offers
/// `SampleRef put(SampleRef, std::span<const NamedTensor>, GivenChecksums)`, as Store<Backend>
/// does, from any thread, and for `link` its adopt(); ContractError where it has none.
template <class Sink>
IngestReport ingest(Sink& store, const std::filesystem::path& dir, IngestOptions options = {},
                    const std::function<void(const IngestProgress&)>& progress = {}) {
    auto files = feature_files(dir);
    if (options.limit && files.size() > *options.limit) files.resize(*options.limit);
    if (!options.convention) options.convention = captured_convention(dir);
    IngestReport report;
    detail::PutAhead<Sink> puts(store, files, options);
    for (std::size_t i = 0; i < files.size(); ++i) {
        auto put = puts.next();
        if (put.error && !(put.bad && options.skip_bad)) std::rethrow_exception(put.error);
        if (put.error)
            report.bad.push_back({files[i], std::move(put.message)});
        else
            report.manifest.refs.push_back(std::move(*put.ref));
        report.bytes += put.bytes;
        if (progress)
            progress({i + 1, files.size(), report.bad.size(), report.bytes,
                      put.error ? nullptr : &report.manifest.refs.back()});
    }
    return report;
}

}  // namespace eyas
