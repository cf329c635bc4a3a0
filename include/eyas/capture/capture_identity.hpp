#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "eyas/core/checksum.hpp"
#include "eyas/core/json.hpp"
#include "eyas/format/hf_weights.hpp"
#include "eyas/sample/capture_convention.hpp"

namespace eyas {

/// What does not follow from a target's numbers: how people call it, and its tokenizer.
struct TargetNames {
    std::string id = "unknown";
    std::string tokenizer = {};  // XXH3-64 of tokenizer.json; "" where there is none
};

namespace detail {
/// A text that JSON can hold, of at most so many bytes: what is no UTF-8 is replaced, a character
/// that is cut left out.
inline std::string json_text(const std::string& text, std::size_t most) {
    const auto whole = [](const std::string& s, Json::error_handler_t bad) {
        return Json::parse(Json(s).dump(-1, ' ', false, bad)).get<std::string>();
    };
    return whole(whole(text, Json::error_handler_t::replace).substr(0, most),
                 Json::error_handler_t::ignore);
}
}  // namespace detail

/// Of a Hugging Face directory: its config's _name_or_path, or the directory's own name.
inline TargetNames target_names(const HfWeights& target) {
    TargetNames names;
    const auto dir = std::filesystem::absolute(target.path()).lexically_normal();
    names.id = (dir.has_filename() ? dir : dir.parent_path()).filename().string();
    const auto& config = target.config().source;
    if (const auto given = config.value("_name_or_path", Json()); given.is_string() && given != "")
        names.id = given.get<std::string>();
    names.id = detail::json_text(names.id, MetadataLimits::string_bytes);
    const auto tokenizer = target.path() / "tokenizer.json";
    if (std::filesystem::is_regular_file(tokenizer))
        names.tokenizer = hex64(xxh3(MappedFile(tokenizer).bytes()));
    return names;
}

/// What makes captured features those of one target: two captures that agree write equal features
/// for equal conversations. It lies in the output directory as capture.json, so that a resumed
/// capture never mixes two models. The first versions wrote target and layers only.
struct CaptureIdentity {
    std::string target;                // TargetModel::fingerprint()
    std::vector<std::int64_t> layers;  // captured
    std::optional<CaptureConvention> convention = {};
};

/// Throws DataError for a file that is damaged.
inline CaptureIdentity read_capture_identity(const std::filesystem::path& features) {
    const auto file = capture_file(features);
    const auto json = read_json_file(file);
    const auto where = file.string();
    return {required<std::string>(json, "target", where),
            required<std::vector<std::int64_t>>(json, "layers", where),
            captured_convention(features)};
}

inline void write_capture_identity(const std::filesystem::path& features,
                                   const CaptureConvention& c) {
    write_text_file(capture_file(features), convention_to_json(c).dump(2) + "\n");
}

/// As difference() of two conventions, of which one may be a first version's, which knew fp32 only.
inline std::optional<std::string> difference(const CaptureIdentity& saved,
                                             const CaptureConvention& now) {
    if (saved.convention) return difference(*saved.convention, now);
    auto all = now;
    all.target = saved.target;
    all.layers = saved.layers;
    all.precision = CaptureConvention().precision;
    return difference(all, now);
}

}  // namespace eyas
