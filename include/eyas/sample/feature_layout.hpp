#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "eyas/sample/feature_spec.hpp"

namespace eyas {

/// The features of an offline EAGLE3 sample under the names they have in files and stores, in the
/// order in which the reference puts them into a store. Dt is the target's width.
namespace feature {
inline constexpr std::string_view input_ids = "input_ids";                // [T] int64
inline constexpr std::string_view loss_mask = "loss_mask";                // [T] int64
inline constexpr std::string_view hidden_state = "hidden_state";          // [1, T, Dt] final state
inline constexpr std::string_view aux_hidden_state = "aux_hidden_state";  // [1, T, 3*Dt]
inline constexpr std::array<std::string_view, 4> all = {input_ids, loss_mask, hidden_state,
                                                        aux_hidden_state};
}  // namespace feature

/// What all features of one sample agree on.
struct FeatureLayout {
    std::int64_t rows = 0;      // T, pad rows inside the file included
    std::int64_t width = 0;     // Dt
    DType dtype = DType::BF16;  // of both hidden states: bfloat16 or float32

    std::int64_t aux_width() const { return 3 * width; }
    bool same_width(const FeatureLayout& o) const { return width == o.width && dtype == o.dtype; }
};

namespace detail {

inline const FeatureSpec& named_spec(std::span<const FeatureSpec> specs, std::string_view name,
                                     const std::string& where) {
    for (const auto& s : specs)
        if (s.name == name) return s;
    throw DataError("feature '" + std::string(name) + "' is missing", where,
                    "Capture the sample again with all of input_ids, loss_mask, hidden_state and "
                    "aux_hidden_state");
}

inline void check_token_row(const FeatureSpec& s, std::int64_t rows, const std::string& where) {
    if (s.dtype != DType::I64 || !(s.shape == Shape{rows}))
        throw DataError("expected int64 [" + std::to_string(rows) + "], found " +
                            std::string(name_of(s.dtype)) + " " + s.shape.text(),
                        where + ": " + s.name, "Capture the sample again");
}

// [1, T, width]; [T, width] is accepted too, as the reference's squeeze(0) does.
inline void check_states(const FeatureSpec& s, const FeatureLayout& want, std::int64_t width,
                         const std::string& where) {
    if (s.dtype != want.dtype ||
        !(s.shape == Shape{1, want.rows, width} || s.shape == Shape{want.rows, width}))
        throw DataError("expected " + std::string(name_of(want.dtype)) + " " +
                            Shape{1, want.rows, width}.text() + ", found " +
                            std::string(name_of(s.dtype)) + " " + s.shape.text(),
                        where + ": " + s.name, "Capture the sample again");
}

}  // namespace detail

/// The layout of a sample from its specs (metadata only, no tensor is touched). Throws DataError
/// for a missing feature, a wrong dtype or rank, lengths or widths that disagree, or no rows.
/// `where` names file or sample.
inline FeatureLayout feature_layout(std::span<const FeatureSpec> specs, const std::string& where) {
    for (const auto name : feature::all) detail::named_spec(specs, name, where);
    const auto& ids = detail::named_spec(specs, feature::input_ids, where);
    const auto& states = detail::named_spec(specs, feature::hidden_state, where);
    FeatureLayout out;
    out.rows = ids.shape.rank() == 1 ? ids.shape[0] : -1;
    const auto rank = states.shape.rank();
    out.width = rank >= 2 ? states.shape[rank - 1] : 0;
    out.dtype = states.dtype;
    if (out.rows < 0)
        throw DataError("expected int64 [T], found shape " + ids.shape.text(),
                        where + ": input_ids", "Store one sample a file");
    if (out.rows == 0 || out.width == 0)
        throw DataError(
            "no rows: input_ids " + ids.shape.text() + ", hidden_state " + states.shape.text(),
            where, "Leave empty conversations out of the capture");
    if (out.dtype != DType::BF16 && out.dtype != DType::F32)
        throw DataError("features are " + std::string(name_of(out.dtype)), where + ": hidden_state",
                        "Store features as bfloat16 or float32");
    detail::check_token_row(ids, out.rows, where);
    detail::check_token_row(detail::named_spec(specs, feature::loss_mask, where), out.rows, where);
    detail::check_states(states, out, out.width, where);
    detail::check_states(detail::named_spec(specs, feature::aux_hidden_state, where), out,
                         out.aux_width(), where);
    return out;
}

/// Throws DataError when a sample cannot share a batch, or a model, with another.
inline void check_same_width(const FeatureLayout& have, const FeatureLayout& first,
                             const std::string& where) {
    if (!have.same_width(first))
        throw DataError("features are " + std::string(name_of(have.dtype)) + " of width " +
                            std::to_string(have.width) + ", those of the first sample " +
                            std::string(name_of(first.dtype)) + " of width " +
                            std::to_string(first.width),
                        where, "Capture all samples with the same target model and precision");
}

}  // namespace eyas
