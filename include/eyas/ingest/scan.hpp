#pragma once
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/sample/capture_convention.hpp"
#include "eyas/sample/feature_layout.hpp"
#include "eyas/sample/manifest.hpp"
#include "eyas/store/local_files.hpp"

namespace eyas {

/// What the refs of a directory of feature files say of themselves; the reference's names and
/// defaults (SpecForge runtime/data_plane/offline_reader.py).
struct ScanOptions {
    std::string run_id = "offline";
    std::string strategy = "eagle3";
    std::int64_t ttt_length = 7;
    std::int64_t max_len = 2048;
    bool read_headers = true;  // fill specs from the files' headers; false: names only, no file is
                               // opened (a .ckpt.gz must be decompressed to reach its header)
};

namespace detail {

/// "run:00000007"
inline std::string sample_id(const std::string& run_id, std::size_t index) {
    const auto digits = std::to_string(index);
    return run_id + ":" + std::string(digits.size() < 8 ? 8 - digits.size() : 0, '0') + digits;
}

inline std::filesystem::path absolute_lexical(const std::filesystem::path& p) {
    auto out = std::filesystem::absolute(p).lexically_normal();
    return out.has_filename() ? out : out.parent_path();  // "dir/" -> "dir"
}

inline bool is_feature_file(const std::filesystem::path& path) {
    const auto& name = path.native();
    return name.ends_with(".ckpt") || name.ends_with(".ckpt.gz");
}

}  // namespace detail

namespace detail {
/// feature_files(), where there may be none yet, nor a directory.
inline std::vector<std::filesystem::path> feature_files_so_far(const std::filesystem::path& dir) {
    namespace fs = std::filesystem;
    const auto root = absolute_lexical(dir);
    std::vector<fs::path> files;
    try {
        if (fs::is_regular_file(root)) return {root};
        if (!fs::exists(root)) return {};
        for (fs::recursive_directory_iterator it(root), none; it != none; ++it) {
            const auto& path = it->path();
            if (it->is_directory()) {
                if (path.filename() == LocalFiles::put_directory) it.disable_recursion_pending();
            } else if (is_feature_file(path)) {
                files.push_back(path);
            }
        }
    } catch (const fs::filesystem_error& e) {
        throw ResourceError(std::string("cannot list: ") + e.what(), root.string(),
                            "Check permissions");
    }
    std::ranges::sort(files, {},
                      [](const fs::path& p) -> const std::string& { return p.native(); });
    return files;
}
}  // namespace detail

/// All feature files (.ckpt, .ckpt.gz) under a directory, absolute, in lexicographic order of the
/// whole path ("data_10" before "data_2"): the order that gives samples their index, equal to the
/// reference's. A path of a file gives that file. Directories behind symbolic links, and what was
/// put into a Store<LocalFiles> there, are not entered. Throws DataError when there is none,
/// ResourceError for a directory that cannot be read.
inline std::vector<std::filesystem::path> feature_files(const std::filesystem::path& dir) {
    const auto root = detail::absolute_lexical(dir);
    if (!std::filesystem::exists(root))
        throw DataError("no such directory", root.string(), "Check the path");
    auto files = detail::feature_files_so_far(root);
    if (files.empty())
        throw DataError("no feature files (.ckpt or .ckpt.gz)", root.string(),
                        "Name the directory that capture wrote");
    return files;
}

/// Refs to the feature files of a directory where they lie, for Store<LocalFiles>; metadata in the
/// reference's names and order. Tensor data are not read. Throws what feature_files throws, and
/// DataError for a file whose header is not that of an EAGLE3 sample.
inline Manifest scan_features(const std::filesystem::path& dir, const ScanOptions& options = {}) {
    Manifest manifest;
    const auto files = feature_files(dir);
    const auto convention = captured_convention(dir);
    for (std::size_t i = 0; i < files.size(); ++i) {
        SampleRef ref;
        ref.sample_id = detail::sample_id(options.run_id, i);
        ref.run_id = options.run_id;
        ref.feature_store_uri = "file://" + files[i].string();
        ref.strategy = options.strategy;
        for (const auto name : feature::all)
            ref.feature_keys.emplace_back(std::string(name), std::string(name));
        if (options.read_headers) {
            const TorchFile file(files[i], {.verify_crc = false});
            for (const auto name : feature::all)
                if (file.contains(name))
                    ref.feature_specs.push_back(spec_of({std::string(name), file.at(name)}));
            const auto layout = feature_layout(ref.feature_specs, files[i].string());
            ref.num_tokens = layout.rows;
            for (const auto& s : ref.feature_specs)
                ref.estimated_bytes += static_cast<std::int64_t>(s.size_bytes());
        }
        ref.metadata["format"] = "offline_" + options.strategy;
        ref.metadata["target_repr"] = "hidden_state";
        ref.metadata["schema_version"] = SampleRef::supported_schema_version;
        ref.metadata["ttt_length"] = options.ttt_length;
        ref.metadata["max_len"] = options.max_len;
        ref.metadata["file_index"] = i;
        tell_convention(ref, convention);
        manifest.refs.push_back(std::move(ref));
    }
    return manifest;
}

}  // namespace eyas
