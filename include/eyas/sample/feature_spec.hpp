#pragma once
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "eyas/core/tensor.hpp"
#include "eyas/sample/metadata_only.hpp"

namespace eyas {

/// Describes one feature (a named tensor of a sample) without holding it. JSON schema: SpecForge's
/// FeatureSpec (runtime/contracts.py).
struct FeatureSpec {
    std::string name;  // "input_ids", "loss_mask", "hidden_state", "aux_hidden_state", ...
    Shape shape;
    DType dtype = DType::F32;
    std::optional<std::string> device_hint = {};
    bool required = true;
    std::optional<std::string> target_repr = {};  // "logits", "pruned_logits" or "hidden_state"
    OrderedJson target_meta = OrderedJson::object();

    std::size_t size_bytes() const {
        return static_cast<std::size_t>(shape.elements()) * size_of(dtype);
    }
    friend bool operator==(const FeatureSpec&, const FeatureSpec&) = default;
};
static_assert(MetadataOnly<FeatureSpec>);

/// The spec of a tensor that lies in memory.
inline FeatureSpec spec_of(const NamedTensor& t) {
    return {.name = t.name, .shape = t.tensor.shape, .dtype = t.tensor.dtype};
}

namespace detail {

// JSON numbers are read as integers only when they are integers: 2.5, true and 2^63 are refused.
inline std::int64_t json_integer(const OrderedJson& value, const std::string& where,
                                 std::int64_t least) {
    constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    const bool fits = value.is_number_integer() &&
                      !(value.is_number_unsigned() && value.get<std::uint64_t>() > most) &&
                      value.get<std::int64_t>() >= least;
    if (!fits)
        throw DataError("expected an integer of at least " + std::to_string(least) + ", found " +
                            value.dump(-1, ' ', true, OrderedJson::error_handler_t::replace),
                        where, "Correct the value");
    return value.get<std::int64_t>();
}

inline std::int64_t integer_member(const OrderedJson& object, const char* key,
                                   std::int64_t fallback, const std::string& where) {
    return object.contains(key) ? json_integer(object.at(key), where + "." + key, std::int64_t{0})
                                : fallback;
}

inline std::optional<std::string> string_or_null(const OrderedJson& object, const char* key,
                                                 const std::string& where) {
    if (!object.contains(key) || object.at(key).is_null()) return std::nullopt;
    return required<std::string>(object, key, where);
}

inline OrderedJson null_or(const std::optional<std::string>& s) {
    return s ? OrderedJson(*s) : OrderedJson(nullptr);
}

// Keys outside the schema are refused, as the reference does.
inline void check_keys(const OrderedJson& object, std::span<const std::string_view> known,
                       const std::string& where) {
    if (!object.is_object())
        throw DataError("expected an object", where, "Write the manifest again");
    for (const auto& [key, unused] : object.items())
        if (std::ranges::find(known, key) == known.end())
            throw DataError("unknown key '" + key + "'", where,
                            "Remove it, or read it with the version that wrote it");
}

// An optional metadata object, checked for payloads.
inline OrderedJson metadata_member(const OrderedJson& object, const char* key,
                                   const std::string& where) {
    if (!object.contains(key)) return OrderedJson::object();
    const auto& value = object.at(key);
    if (!value.is_object())
        throw DataError("expected an object", where + "." + key, "Correct the value");
    check_metadata(value, where + "." + key);
    return value;
}

}  // namespace detail

inline OrderedJson spec_to_json(const FeatureSpec& s) {
    OrderedJson j;
    j["name"] = s.name;
    j["shape"] = std::vector<std::int64_t>(s.shape.dims().begin(), s.shape.dims().end());
    j["dtype"] = std::string(name_of(s.dtype));
    j["device_hint"] = detail::null_or(s.device_hint);
    j["required"] = s.required;
    j["target_repr"] = detail::null_or(s.target_repr);
    j["target_meta"] = s.target_meta;
    return j;
}

/// Throws DataError for a missing or unknown key, a wrong type, an impossible shape.
inline FeatureSpec spec_from_json(const OrderedJson& j, const std::string& where) {
    static constexpr std::string_view keys[] = {
        "name", "shape", "dtype", "device_hint", "required", "target_repr", "target_meta"};
    detail::check_keys(j, keys, where);
    FeatureSpec s;
    s.name = required<std::string>(j, "name", where);
    const auto dims = required<OrderedJson>(j, "shape", where);
    if (!dims.is_array() || dims.size() > Shape::max_rank)
        throw DataError("a shape is a list of at most 8 integers", where + ".shape",
                        "Write the manifest again");
    std::vector<std::int64_t> extents;
    for (const auto& d : dims) extents.push_back(detail::json_integer(d, where + ".shape", 0));
    s.shape = Shape(extents);
    try {
        (void)s.shape.elements();  // refuses a product that overflows
    } catch (const DataError& e) {
        throw DataError(e.what(), where + ".shape", "Write the manifest again");
    }
    s.dtype = dtype_from_name(required<std::string>(j, "dtype", where), where + ".dtype");
    s.device_hint = detail::string_or_null(j, "device_hint", where);
    s.required = j.contains("required") ? required<bool>(j, "required", where) : true;
    s.target_repr = detail::string_or_null(j, "target_repr", where);
    s.target_meta = detail::metadata_member(j, "target_meta", where);
    return s;
}

}  // namespace eyas
