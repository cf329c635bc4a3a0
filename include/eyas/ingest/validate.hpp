#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eyas/core/tensor.hpp"
#include "eyas/sample/feature_layout.hpp"

namespace eyas {

/// What a valid sample must fit; unset bounds are not checked.
struct SampleBounds {
    std::optional<std::int64_t> vocab_size = {};                      // V: ids lie in [0, V)
    std::int64_t max_len = std::numeric_limits<std::int64_t>::max();  // rows that training uses
    bool state_values = true;  // false: of the hidden states only dtype and shape are looked at
};

/// Rows that training learns from: those with mask 1 before the last row it uses, which has no
/// successor.
inline std::int64_t supervised_tokens(std::span<const std::int64_t> mask, std::int64_t max_len) {
    const auto rows = std::min(std::ssize(mask), max_len);
    return rows < 1 ? 0 : std::ranges::count(mask.first(static_cast<std::size_t>(rows - 1)), 1);
}

namespace detail {

// A number is NaN or infinite exactly when all its exponent bits are set.
template <class Bits, Bits exponent>
std::size_t first_non_finite(const std::byte* data, std::size_t n) {
    constexpr std::size_t block = 4096;
    const auto* bits = reinterpret_cast<const Bits*>(data);
    for (std::size_t start = 0; start < n; start += block) {
        const auto stop = std::min(n, start + block);
        unsigned found = 0;
#pragma omp simd reduction(| : found)
        for (std::size_t i = start; i < stop; ++i)
            found |= static_cast<unsigned>((bits[i] & exponent) == exponent);
        if (!found) continue;
        for (std::size_t i = start; i < stop; ++i)
            if ((bits[i] & exponent) == exponent) return i;
    }
    return n;
}

}  // namespace detail

/// Index of the first NaN or infinity in a float32 or bfloat16 tensor; nullopt where all are
/// finite. Runs at the speed of memory. Throws ContractError for another dtype.
inline std::optional<std::size_t> find_non_finite(const TensorView& t) {
    const auto n = static_cast<std::size_t>(t.elements());
    std::size_t at = 0;
    if (t.dtype == DType::BF16)
        at = detail::first_non_finite<std::uint16_t, 0x7f80>(t.data, n);
    else if (t.dtype == DType::F32)
        at = detail::first_non_finite<std::uint32_t, 0x7f800000>(t.data, n);
    else
        throw ContractError("cannot scan " + std::string(name_of(t.dtype)), "find_non_finite",
                            "Pass float32 or bfloat16");
    return at < n ? std::optional(at) : std::nullopt;
}

namespace detail {

/// Sees every byte of a tensor once, piece by piece in order, while it is in the cache.
using ByteObserver = std::function<void(const NamedTensor&, std::span<const std::byte>)>;

inline void check_states_finite(const NamedTensor& t, std::int64_t width, const std::string& where,
                                const ByteObserver& observe) {
    constexpr std::int64_t step = 8192;  // elements
    const auto n = t.tensor.elements();
    const auto size = size_of(t.tensor.dtype);
    std::optional<std::size_t> at;
    for (std::int64_t i = 0; i < n && !at; i += step) {
        const TensorView piece{t.tensor.data + static_cast<std::size_t>(i) * size, t.tensor.dtype,
                               Shape{std::min(step, n - i)}};
        if ((at = find_non_finite(piece))) *at += static_cast<std::size_t>(i);
        if (observe) observe(t, piece.bytes());
    }
    if (!at) return;
    const auto columns = static_cast<std::size_t>(width);
    throw DataError("NaN or infinity at row " + std::to_string(*at / columns) + ", column " +
                        std::to_string(*at % columns),
                    where + ": " + t.name, "Capture the sample again, or leave it out");
}

inline void check_ids(std::span<const std::int64_t> ids, const SampleBounds& bounds,
                      const std::string& where) {
    const auto most = bounds.vocab_size.value_or(std::numeric_limits<std::int64_t>::max());
    for (std::size_t i = 0; i < ids.size(); ++i)
        if (ids[i] < 0 || ids[i] >= most)
            throw DataError(
                "token id " + std::to_string(ids[i]) + " at row " + std::to_string(i) +
                    (ids[i] < 0 ? " is negative"
                                : " is outside the vocabulary of " + std::to_string(most)),
                where + ": input_ids", "Capture with the tokenizer of this target model");
}

inline void check_loss_mask(std::span<const std::int64_t> mask, const SampleBounds& bounds,
                            const std::string& where) {
    for (std::size_t i = 0; i < mask.size(); ++i)
        if (mask[i] != 0 && mask[i] != 1)
            throw DataError(
                "mask value " + std::to_string(mask[i]) + " at row " + std::to_string(i),
                where + ": loss_mask", "Use 0 and 1");
    if (supervised_tokens(mask, bounds.max_len) == 0)
        throw DataError("no supervised token in the first " +
                            std::to_string(std::min(std::ssize(mask), bounds.max_len)) + " rows",
                        where + ": loss_mask",
                        "Leave the sample out, or raise max_len if the answer comes later");
}

}  // namespace detail

/// Checks one sample, metadata first, then every value. `tensors` may hold more than the four
/// features; the others are not looked at. Returns the sample's layout. Throws DataError that names
/// feature and row: missing keys, wrong dtype or shape, lengths that disagree, NaN or infinity,
/// ids that are negative or outside V, mask values other than 0 and 1, no supervised token.
/// `observe` sees the bytes of the four features in the same pass (to take their checksums).
inline FeatureLayout validate_sample(std::span<const NamedTensor> tensors,
                                     const SampleBounds& bounds, const std::string& where,
                                     const detail::ByteObserver& observe = {}) {
    std::vector<FeatureSpec> specs;
    for (const auto& t : tensors) specs.push_back(spec_of(t));
    const auto layout = feature_layout(specs, where);
    for (const auto& t : tensors) {
        const bool row = t.name == feature::input_ids || t.name == feature::loss_mask;
        if (observe && row) observe(t, t.tensor.bytes());
        if (t.name == feature::input_ids)
            detail::check_ids(t.tensor.as<std::int64_t>(), bounds, where);
        else if (t.name == feature::loss_mask)
            detail::check_loss_mask(t.tensor.as<std::int64_t>(), bounds, where);
        else if (!bounds.state_values)
            continue;
        else if (t.name == feature::hidden_state)
            detail::check_states_finite(t, layout.width, where, observe);
        else if (t.name == feature::aux_hidden_state)
            detail::check_states_finite(t, layout.aux_width(), where, observe);
    }
    return layout;
}

}  // namespace eyas
