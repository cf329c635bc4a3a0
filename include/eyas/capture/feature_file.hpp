#pragma once
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "eyas/capture/conversations.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/core/file.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/format/torch_writer.hpp"
#include "eyas/sample/feature_layout.hpp"

namespace eyas {

/// Where conversation `index` goes, 2000 to a folder: OUT/rows_0-2000/data_17.ckpt.
/// Source: SpecForge's offline preparation.
inline std::filesystem::path feature_file(const std::filesystem::path& out, std::int64_t index) {
    constexpr std::int64_t per_folder = 2000;
    const auto first = index / per_folder * per_folder;
    return out / ("rows_" + std::to_string(first) + "-" + std::to_string(first + per_folder)) /
           ("data_" + std::to_string(index) + ".ckpt");
}

/// The index of a file that is named as feature_file() names it (or that with .gz behind); nothing
/// for any other name.
inline std::optional<std::int64_t> feature_index(const std::filesystem::path& file) {
    const auto name = file.filename().string();
    constexpr std::string_view before = "data_";
    if (!name.starts_with(before)) return std::nullopt;
    std::int64_t index = 0;
    const auto [rest, error] =
        std::from_chars(name.data() + before.size(), name.data() + name.size(), index);
    const std::string_view after(rest);
    if (error != std::errc() || index < 0 || (after != ".ckpt" && after != ".ckpt.gz"))
        return std::nullopt;
    return index;
}

namespace detail {

/// Whether `file` holds the complete features of `c` from a target of width `width`. Damaged and
/// foreign files are "no": they are captured again.
inline bool holds_features_of(const std::filesystem::path& file, const Conversation& c,
                              std::int64_t width) {
    if (!std::filesystem::exists(file)) return false;
    try {
        const TorchFile f(file);
        std::vector<FeatureSpec> specs;
        for (const auto& t : f.tensors()) specs.push_back(spec_of(t));
        const auto layout = feature_layout(specs, file.string());
        return layout.width == width && layout.dtype == DType::BF16 &&
               std::ranges::equal(f.at(feature::input_ids).as<std::int64_t>(), c.input_ids) &&
               std::ranges::equal(f.at(feature::loss_mask).as<std::int64_t>(), c.loss_mask);
    } catch (const DataError&) {
        return false;
    }
}

/// Rows [first, first + rows) of fp32 states [N, width] as bfloat16 [1, rows, width].
inline Tensor narrowed_rows(const Tensor& states, std::int64_t first, std::int64_t rows) {
    const auto width = states.shape()[1];
    Tensor out(DType::BF16, {1, rows, width});
    const auto offset = static_cast<std::size_t>(first * width) * size_of(DType::F32);
    convert_into(TensorView{states.view().data + offset, DType::F32, {rows, width}},
                 out.mutable_view());
    return out;
}

inline TensorView token_row(const std::vector<std::int64_t>& values) {
    return {reinterpret_cast<const std::byte*>(values.data()),
            DType::I64,
            {static_cast<std::int64_t>(values.size())}};
}

}  // namespace detail

/// Writes a feature file of the reference's layout: input_ids [T], loss_mask [T], aux_hidden_state
/// [1, T, 3D], hidden_state [1, T, D], states in bfloat16. It appears complete or not at all.
/// Throws ResourceError when the disk refuses.
inline void write_feature_file(const std::filesystem::path& file, const Conversation& c,
                               const TensorView& captured, const TensorView& last) {
    const NamedTensor tensors[] = {
        {std::string(feature::input_ids), detail::token_row(c.input_ids)},
        {std::string(feature::loss_mask), detail::token_row(c.loss_mask)},
        {std::string(feature::aux_hidden_state), captured},
        {std::string(feature::hidden_state), last}};
    eyas::create_directories(file.parent_path());
    write_torch_file(file, tensors);
}

}  // namespace eyas
