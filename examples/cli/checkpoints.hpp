#pragma once
#include <filesystem>
#include <string>

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

}  // namespace eyas::cli
