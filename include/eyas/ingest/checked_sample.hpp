#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/running_sums.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/ingest/validate.hpp"
#include "eyas/sample/capture_convention.hpp"
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
    std::int64_t put_threads = 2;                 // that write into the store at once
    // The files themselves become the store's, without a copy: only their headers, ids and masks
    // are read, so NaN and damage in states are found when they are (CRCs), not here.
    bool link = false;
    // What refs say of how the features were captured; where nothing is given, what capture.json
    // beside the features says.
    std::optional<CaptureConvention> convention = {};
};

namespace detail {

/// One feature file, opened and found good. The views live as long as `file`.
struct CheckedSample {
    TorchFile file;
    std::vector<NamedTensor> tensors;  // in the order of feature::all
    FeatureLayout layout;
    Checksums checksums = {};  // of the tensors, taken while they were checked
};

/// Throws DataError that names the file for one that is damaged or no valid sample.
inline CheckedSample open_checked(const std::filesystem::path& path, const IngestOptions& o) {
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
    return sample;
}

inline std::uint64_t bytes_of(const CheckedSample& s) {
    std::uint64_t bytes = 0;
    for (const auto& t : s.tensors) bytes += t.tensor.size_bytes();
    return bytes;
}

}  // namespace detail
}  // namespace eyas
