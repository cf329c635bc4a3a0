#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "eyas/checkpoint/directory.hpp"
#include "eyas/core/checksum.hpp"
#include "eyas/core/json.hpp"

namespace eyas {

/// Everything about a training run that is not a tensor: state.json of a checkpoint.
struct CheckpointState {
    std::int64_t step = 0;            // optimizer steps done
    std::int64_t epoch = 0;           // where the loader's next batch lies
    std::int64_t batch = 0;           // in the epoch
    std::int64_t optimizer_step = 0;  // AdamW's own count
    Json metrics = Json::object();    // sums since the last log record
    Json identity = Json::object();   // what a resume must have the same
};

namespace detail {
inline constexpr const char* state_file = "state.json";
inline constexpr const char* checkpoint_format = "eyas-checkpoint";

inline std::string checksum_of_json(const Json& j) {
    const auto text = j.dump();
    return hex64(xxh3(std::as_bytes(std::span(text))));
}

inline Json describe_file(const std::filesystem::path& path) {
    const MappedFile f(path);
    return {{"size", f.bytes().size()}, {"xxh3", hex64(xxh3(f.bytes()))}};
}
}  // namespace detail

/// Writes state.json beside the named files, which must be complete: it records their sizes and
/// checksums, and its own.
inline void write_checkpoint_state(const std::filesystem::path& dir, const CheckpointState& s,
                                   const std::vector<std::string>& files) {
    Json j{{"format", detail::checkpoint_format},
           {"version", 1},
           {"step", s.step},
           {"position", {{"epoch", s.epoch}, {"batch", s.batch}}},
           {"optimizer_step", s.optimizer_step},
           {"metrics", s.metrics},
           {"identity", s.identity},
           {"files", Json::object()}};
    for (const auto& name : files) j["files"][name] = detail::describe_file(dir / name);
    j["checksum"] = detail::checksum_of_json(j);
    write_text_file(dir / detail::state_file, j.dump(2) + "\n");
}

/// Reads state.json and verifies the size and checksum of every file that it lists.
/// Throws DataError that names the file which is missing, cut or changed.
inline CheckpointState read_checkpoint_state(const std::filesystem::path& dir) {
    const auto path = dir / detail::state_file;
    const auto where = path.string();
    Json j = read_json_file(path);
    if (optional<std::string>(j, "format", "", where) != detail::checkpoint_format ||
        required<int>(j, "version", where) != 1)
        throw DataError("not a version 1 eyas checkpoint", where, "Name a checkpoint directory");
    const auto checksum = required<std::string>(j, "checksum", where);
    j.erase("checksum");
    if (detail::checksum_of_json(j) != checksum)
        throw DataError("checksum mismatch", where, "Use an older checkpoint");
    const auto files = required<Json>(j, "files", where);
    for (const auto& [name, expected] : files.items()) {
        const auto file = dir / name;
        if (detail::describe_file(file) != expected)
            throw DataError("size or checksum is not what state.json says", file.string(),
                            "Use an older checkpoint");
    }
    const auto position = required<Json>(j, "position", where);
    return {.step = required<std::int64_t>(j, "step", where),
            .epoch = required<std::int64_t>(position, "epoch", where),
            .batch = required<std::int64_t>(position, "batch", where),
            .optimizer_step = required<std::int64_t>(j, "optimizer_step", where),
            .metrics = required<Json>(j, "metrics", where),
            .identity = required<Json>(j, "identity", where)};
}

/// The newest good checkpoint of a run, and what was passed over on the way to it.
struct LatestCheckpoint {
    std::optional<std::filesystem::path> path;
    CheckpointState state;
    std::string report;  // one line per checkpoint that is incomplete or corrupt; usually empty
};

inline LatestCheckpoint latest_checkpoint(const std::filesystem::path& run_dir) {
    LatestCheckpoint latest;
    for (const auto& dir : checkpoint_directories(run_dir)) {
        try {
            latest.state = read_checkpoint_state(dir);
            latest.path = dir;
            return latest;
        } catch (const DataError& e) {
            latest.report += "passed over " + dir.string() + ": " + e.what() + "\n";
        }
    }
    return latest;
}

}  // namespace eyas
