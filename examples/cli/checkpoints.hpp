#pragma once
#include <filesystem>
#include <string>

#include "eyas/checkpoint/draft_weights.hpp"
#include "eyas/checkpoint/state.hpp"

namespace eyas::cli {

/// A checkpoint directory itself, or the newest good one of a run directory.
inline std::filesystem::path newest_checkpoint(const std::filesystem::path& path) {
    if (std::filesystem::exists(path / eyas::detail::state_file)) {
        read_checkpoint_state(path);  // verifies the checksums
        return path;
    }
    const auto latest = latest_checkpoint(path);
    if (!latest.path)
        throw DataError("no good checkpoint here. " + latest.report, path.string(),
                        "Name a checkpoint-STEP directory or a run directory");
    return *latest.path;
}

/// The file of a draft's weights: of an export, another program's draft, a checkpoint or a run
/// directory, or itself.
inline std::filesystem::path weights_file(const std::filesystem::path& path) {
    if (!std::filesystem::is_directory(path)) return path;
    const bool checkpoint = std::filesystem::exists(path / eyas::detail::state_file);
    for (const char* name : DraftWeights::file_names)
        if (!checkpoint && std::filesystem::exists(path / name)) return path / name;
    return DraftWeights::file_of(newest_checkpoint(path));
}

}  // namespace eyas::cli
