#pragma once
#include <filesystem>
#include <utility>
#include <vector>

#include "eyas/checkpoint/checkpoint.hpp"
#include "eyas/checkpoint/on_host.hpp"
#include "eyas/trainer/agreement.hpp"
#include "eyas/trainer/identity.hpp"
#include "eyas/trainer/options.hpp"
#include "eyas/trainer/shards.hpp"
#include "eyas/trainer/state_gather.hpp"

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

/// The same for all ranks; none where `run_dir` is empty. Where one finds another than the others,
/// or fails, every rank throws: its own error, or ContractError.
template <class C>
LatestCheckpoint common_checkpoint(C& collective, const std::filesystem::path& run_dir,
                                   Resume resume) {
    LatestCheckpoint latest;
    FoundCheckpoint found;
    all_or_none<ContractError>(collective, "another rank cannot resume", run_dir.string(), [&] {
        if (!run_dir.empty()) latest = checkpoint_to_resume(run_dir, resume);
        found = FoundCheckpoint::of(latest);
    });
    require_same_checkpoint(collective, found, run_dir.string());
    return latest;
}

/// Reads a checkpoint for a run of this identity, whose world may have another size, into what
/// lives on a device: the optimizer's state in `live` is of shards.owned(). Errors as of
/// restore_checkpoint, identity_to_resume and position_to_resume. What is returned has the position
/// that this run's loader goes on at.
template <Device D>
CheckpointState restore_for(const D& device, const Json& identity, const LatestCheckpoint& from,
                            const CheckpointContent& live, const Shards& shards) {
    const auto where = from.path->string();
    const auto wanted = identity_to_resume(from.state.identity, identity, where);
    const auto to = position_to_resume(from.state, identity, where);
    const ContentOnHost host(device, live);
    auto content = host.content();
    auto slices = state_slices(shards, std::exchange(content.optimizer, {}));
    auto s = restore_checkpoint(*from.path, content, wanted, std::move(slices));
    host.put_back();
    s.epoch = to.epoch;
    s.batch = to.batch;
    return s;
}

}  // namespace eyas::detail
