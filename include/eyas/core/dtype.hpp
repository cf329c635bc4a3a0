#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "eyas/core/bfloat16.hpp"
#include "eyas/core/error.hpp"

namespace eyas {

/// Element types that torch, safetensors and eyas have in common.
enum class DType : std::uint8_t {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    C64,
    C128
};

namespace detail {
struct DTypeRow {
    DType dtype;
    std::size_t size;              // bytes per element
    std::string_view torch;        // "bfloat16", as in str(torch.dtype) without "torch."
    std::string_view safetensors;  // "BF16"; empty where safetensors has no such type
    std::string_view storage;      // legacy storage class in a torch pickle; empty: untyped storage
};

// One row per enumerator, in order.
inline constexpr std::array<DTypeRow, 17> dtype_table{{
    {DType::F64, 8, "float64", "F64", "DoubleStorage"},
    {DType::F32, 4, "float32", "F32", "FloatStorage"},
    {DType::F16, 2, "float16", "F16", "HalfStorage"},
    {DType::BF16, 2, "bfloat16", "BF16", "BFloat16Storage"},
    {DType::F8E4M3, 1, "float8_e4m3fn", "F8_E4M3", ""},
    {DType::F8E5M2, 1, "float8_e5m2", "F8_E5M2", ""},
    {DType::I64, 8, "int64", "I64", "LongStorage"},
    {DType::I32, 4, "int32", "I32", "IntStorage"},
    {DType::I16, 2, "int16", "I16", "ShortStorage"},
    {DType::I8, 1, "int8", "I8", "CharStorage"},
    {DType::U64, 8, "uint64", "U64", ""},
    {DType::U32, 4, "uint32", "U32", ""},
    {DType::U16, 2, "uint16", "U16", ""},
    {DType::U8, 1, "uint8", "U8", "ByteStorage"},
    {DType::Bool, 1, "bool", "BOOL", "BoolStorage"},
    {DType::C64, 8, "complex64", "", "ComplexFloatStorage"},
    {DType::C128, 16, "complex128", "", "ComplexDoubleStorage"},
}};

constexpr const DTypeRow& row(DType d) { return dtype_table[static_cast<std::size_t>(d)]; }
}  // namespace detail

/// Bytes per element.
constexpr std::size_t size_of(DType d) { return detail::row(d).size; }

/// The torch name without "torch.": "float32", "bfloat16", "int64", ...
constexpr std::string_view name_of(DType d) { return detail::row(d).torch; }

/// From a torch name, with or without "torch.". Throws DataError for an unknown one.
inline DType dtype_from_name(std::string_view name, const std::string& where) {
    constexpr std::string_view prefix = "torch.";
    const auto bare = name.starts_with(prefix) ? name.substr(prefix.size()) : name;
    for (const auto& r : detail::dtype_table)
        if (r.torch == bare) return r.dtype;
    throw DataError("unknown dtype '" + std::string(name) + "'", where,
                    "Use a torch dtype name such as float32, bfloat16 or int64");
}

/// C++ element type -> DType.
template <class T>
struct dtype_of_t;
template <>
struct dtype_of_t<double> {
    static constexpr DType value = DType::F64;
};
template <>
struct dtype_of_t<float> {
    static constexpr DType value = DType::F32;
};
template <>
struct dtype_of_t<BFloat16> {
    static constexpr DType value = DType::BF16;
};
template <>
struct dtype_of_t<std::int64_t> {
    static constexpr DType value = DType::I64;
};
template <>
struct dtype_of_t<std::int32_t> {
    static constexpr DType value = DType::I32;
};
template <>
struct dtype_of_t<std::uint8_t> {
    static constexpr DType value = DType::U8;
};
template <>
struct dtype_of_t<bool> {
    static constexpr DType value = DType::Bool;
};
template <class T>
inline constexpr DType dtype_of = dtype_of_t<T>::value;

}  // namespace eyas
