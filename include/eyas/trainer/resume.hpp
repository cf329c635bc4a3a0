#pragma once
#include <filesystem>

#include "eyas/checkpoint/state.hpp"
#include "eyas/trainer/options.hpp"

namespace eyas::detail {

/// The newest good checkpoint of a run directory, as the options want it; no path: start afresh.
/// Throws ContractError where there is one and none may be, or the other way round; DataError where
/// there are some and none is good.
inline LatestCheckpoint checkpoint_to_resume(const std::filesystem::path& run_dir, Resume resume) {
    auto latest = latest_checkpoint(run_dir);
    const auto where = run_dir.string();
    if (latest.path && resume == Resume::Never)
        throw ContractError("the run directory already holds " + latest.path->string(), where,
                            "Resume, or name another run directory");
    if (!latest.path && !latest.report.empty())
        throw DataError("no checkpoint here is good. " + latest.report, where,
                        "Restore one, or name another run directory");
    if (!latest.path && resume == Resume::Require)
        throw ContractError("there is no checkpoint to resume from", where,
                            "Name the run directory of an earlier run");
    return latest;
}

}  // namespace eyas::detail
