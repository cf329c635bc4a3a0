#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/checksum.hpp"
#include "eyas/core/dtype.hpp"
#include "eyas/core/json.hpp"
#include "eyas/sample/manifest.hpp"

namespace eyas {

/// How features were captured: what a draft that is trained on them has to be served with. It lies
/// beside feature files (capture.json), in the metadata of their refs ("capture"), and in the
/// config.json of drafts that were trained on them ("eyas.capture").
struct CaptureConvention {
    std::string target_id;              // a name for people, not compared: directories get renamed
    std::string target;                 // TargetModel::fingerprint(): its config and weights
    std::vector<std::int64_t> layers;   // captured, counted from 0: the residual stream after each
    std::string norm = "final_norm";    // hidden_state is after the model's norm; captured states
                                        // are before any
    std::string tokenizer = {};         // XXH3-64 of tokenizer.json; "": not known, not compared
    std::int64_t vocab_size = 0;        // V, of the target
    std::int64_t hidden_size = 0;       // Dt
    std::string dtype = "bfloat16";     // of states as they were captured
    std::string precision = "float32";  // of the target's matrix products: TargetModel's P
};

/// As text: "layers: [1, 5, 8] and [2, 5, 8]" for the first field in which two conventions differ;
/// nothing where they agree.
std::optional<std::string> difference(const CaptureConvention& a, const CaptureConvention& b);

inline bool operator==(const CaptureConvention& a, const CaptureConvention& b) {
    return !difference(a, b);
}

/// Fields in this order; "target" and "layers" are those of the first versions' capture.json. One
/// without "precision" is of a version that knew fp32 only.
inline OrderedJson convention_to_json(const CaptureConvention& c) {
    return {{"target", c.target},           {"layers", c.layers},
            {"target_id", c.target_id},     {"norm", c.norm},
            {"tokenizer", c.tokenizer},     {"vocab_size", c.vocab_size},
            {"hidden_size", c.hidden_size}, {"dtype", c.dtype},
            {"precision", c.precision}};
}

inline std::optional<std::string> difference(const CaptureConvention& a,
                                             const CaptureConvention& b) {
    auto x = convention_to_json(a), y = convention_to_json(b);
    x.erase("target_id"), y.erase("target_id");
    if (a.tokenizer.empty() || b.tokenizer.empty()) x.erase("tokenizer"), y.erase("tokenizer");
    for (const auto& [key, value] : x.items())
        if (value != y.at(key)) return key + ": " + value.dump() + " and " + y.at(key).dump();
    return std::nullopt;
}

namespace detail {
inline std::string short_text(const OrderedJson& j, const char* key, const std::string& where) {
    auto text = required<std::string>(j, key, where);
    if (text.size() > MetadataLimits::string_bytes)
        throw DataError(std::string(key) + " has " + std::to_string(text.size()) + " bytes", where,
                        "Capture again");
    return text;
}

/// 16 hexadecimal digits, as hex64() writes them.
inline bool is_hex64(const std::string& text) {
    return text.size() == 16 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

inline void check_convention(const CaptureConvention& c, const std::string& where) {
    const auto refuse = [&](const std::string& what) {
        throw DataError(what, where, "Capture the samples again");
    };
    if (!is_hex64(c.target)) refuse("target '" + c.target + "' is no fingerprint");
    if (!c.tokenizer.empty() && !is_hex64(c.tokenizer))
        refuse("tokenizer '" + c.tokenizer + "' is no checksum");
    if (c.layers.empty() || c.layers.size() > MetadataLimits::list_items)
        refuse(std::to_string(c.layers.size()) + " captured layers");
    constexpr std::int64_t most = std::int64_t{1} << 31;
    for (const auto l : c.layers)
        if (l < 0 || l >= most) refuse("captured layer " + std::to_string(l));
    for (const auto size : {c.vocab_size, c.hidden_size})
        if (size < 1 || size > most) refuse("a size of " + std::to_string(size));
    dtype_from_name(c.dtype, where);
    if (c.precision != "float32" && c.precision != "bfloat16")
        refuse("precision '" + c.precision + "'");
}
}  // namespace detail

/// Throws DataError for a missing field, one of another type, and values that no capture writes.
inline CaptureConvention convention_from_json(const OrderedJson& j, const std::string& where) {
    CaptureConvention c;
    c.target_id = detail::short_text(j, "target_id", where);
    c.target = detail::short_text(j, "target", where);
    c.layers = required<std::vector<std::int64_t>>(j, "layers", where);
    c.norm = detail::short_text(j, "norm", where);
    c.tokenizer = detail::short_text(j, "tokenizer", where);
    c.vocab_size = required<std::int64_t>(j, "vocab_size", where);
    c.hidden_size = required<std::int64_t>(j, "hidden_size", where);
    c.dtype = detail::short_text(j, "dtype", where);
    if (j.contains("precision")) c.precision = detail::short_text(j, "precision", where);
    detail::check_convention(c, where);
    return c;
}

inline std::filesystem::path capture_file(const std::filesystem::path& features) {
    return features / "capture.json";
}

/// What capture.json in a directory of feature files says; nothing where there is none, or one of
/// the first versions, which said less. Throws DataError for one that is damaged.
inline std::optional<CaptureConvention> captured_convention(const std::filesystem::path& features) {
    const auto file = capture_file(features);
    if (!std::filesystem::exists(file)) return std::nullopt;
    const auto json = read_json_file<OrderedJson>(file);
    if (!json.is_object() || !json.contains("norm")) return std::nullopt;
    return convention_from_json(json, file.string());
}

inline constexpr const char* convention_key = "capture";  // in a ref's metadata

inline void tell_convention(SampleRef& ref, const std::optional<CaptureConvention>& c) {
    if (c) ref.metadata[convention_key] = convention_to_json(*c);
}

/// What a ref says; nothing where it says nothing. Throws DataError.
inline std::optional<CaptureConvention> convention_of(const SampleRef& ref) {
    const auto it = ref.metadata.find(convention_key);
    if (it == ref.metadata.end()) return std::nullopt;
    return convention_from_json(*it, "sample '" + ref.sample_id + "': metadata.capture");
}

/// The convention that refs have in common. One thread.
class CommonConvention {
public:
    /// The next ref. Throws DataError where it says another convention than those before.
    void operator()(const SampleRef& ref) {
        const auto it = ref.metadata.find(convention_key);
        if (it == ref.metadata.end()) {
            ++silent_;
            return;
        }
        if (said_ && *it == text_) return;  // as nearly always
        const auto here = convention_of(ref);
        if (!said_) {
            said_ = here;
            text_ = *it;
        } else if (const auto d = difference(*said_, *here)) {
            throw DataError(
                "was captured otherwise than the samples before it: " + *d + " (before, here)",
                "sample '" + ref.sample_id + "'", "Use samples of one capture convention");
        }
    }

    const std::optional<CaptureConvention>& said() const { return said_; }
    std::size_t silent() const { return silent_; }  // refs that say nothing

private:
    std::optional<CaptureConvention> said_;
    OrderedJson text_;
    std::size_t silent_ = 0;
};

}  // namespace eyas
