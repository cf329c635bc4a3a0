#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "eyas/core/json.hpp"

namespace eyas {

/// What makes captured features those of one target: two captures with equal identities write equal
/// features for equal conversations. It lies in the output directory as capture.json, so that a
/// resumed capture never mixes two models.
struct CaptureIdentity {
    std::string target;                // TargetModel::fingerprint()
    std::vector<std::int64_t> layers;  // captured

    friend bool operator==(const CaptureIdentity&, const CaptureIdentity&) = default;
};

inline std::filesystem::path capture_identity_file(const std::filesystem::path& out) {
    return out / "capture.json";
}

inline CaptureIdentity read_capture_identity(const std::filesystem::path& file) {
    const auto json = read_json_file(file);
    const auto where = file.string();
    return {required<std::string>(json, "target", where),
            required<std::vector<std::int64_t>>(json, "layers", where)};
}

inline void write_capture_identity(const std::filesystem::path& file, const CaptureIdentity& id) {
    const OrderedJson json = {{"target", id.target}, {"layers", id.layers}};
    write_text_file(file, json.dump(2) + "\n");
}

}  // namespace eyas
