#pragma once
#include <cmath>
#include <concepts>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "eyas/core/dtype.hpp"
#include "eyas/core/json.hpp"
#include "eyas/core/shape.hpp"

namespace eyas {

namespace detail {

// Converts to anything: with it, the number of initialisers that an aggregate accepts is counted.
struct AnyValue {
    template <class T>
    operator T() const;
};

template <class T, std::size_t... I>
constexpr bool accepts(std::index_sequence<I...>) {
    return requires { T{(static_cast<void>(I), AnyValue{})...}; };
}

template <class T, std::size_t N = 16>
constexpr std::size_t member_count() {
    if constexpr (accepts<T>(std::make_index_sequence<N>{}))
        return N;
    else if constexpr (N > 0)
        return member_count<T, N - 1>();
    else
        return 0;
}

template <class... M>
struct Members {};

// The member types of an aggregate. Never called: only its return type is used.
template <class T>
constexpr auto members_of(const T& t) {
    constexpr auto n = member_count<T>();
    static_assert(n >= 1 && n <= 16, "a control-plane record has 1 to 16 members");
    const auto list = []<class... M>(const M&...) { return Members<M...>{}; };
#define EYAS_MEMBERS(count, ...)       \
    if constexpr (n == count) {        \
        const auto& [__VA_ARGS__] = t; \
        return list(__VA_ARGS__);      \
    }
    EYAS_MEMBERS(1, a)
    EYAS_MEMBERS(2, a, b)
    EYAS_MEMBERS(3, a, b, c)
    EYAS_MEMBERS(4, a, b, c, d)
    EYAS_MEMBERS(5, a, b, c, d, e)
    EYAS_MEMBERS(6, a, b, c, d, e, f)
    EYAS_MEMBERS(7, a, b, c, d, e, f, g)
    EYAS_MEMBERS(8, a, b, c, d, e, f, g, h)
    EYAS_MEMBERS(9, a, b, c, d, e, f, g, h, i)
    EYAS_MEMBERS(10, a, b, c, d, e, f, g, h, i, j)
    EYAS_MEMBERS(11, a, b, c, d, e, f, g, h, i, j, k)
    EYAS_MEMBERS(12, a, b, c, d, e, f, g, h, i, j, k, l)
    EYAS_MEMBERS(13, a, b, c, d, e, f, g, h, i, j, k, l, m)
    EYAS_MEMBERS(14, a, b, c, d, e, f, g, h, i, j, k, l, m, o)
    EYAS_MEMBERS(15, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p)
    EYAS_MEMBERS(16, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q)
#undef EYAS_MEMBERS
}

// What a control-plane record may be made of. Everything not named here is refused, so a pointer, a
// span, a view or a vector of numbers (a tensor under another name) does not get in.
template <class T>
struct IsMetadata : std::bool_constant<std::is_arithmetic_v<T> || std::is_enum_v<T>> {};
template <>
struct IsMetadata<std::string> : std::true_type {};
template <>
struct IsMetadata<Shape> : std::true_type {};
template <>
struct IsMetadata<OrderedJson> : std::true_type {};  // bounded at run time: check_metadata
template <class T>
struct IsMetadata<std::optional<T>> : IsMetadata<T> {};
template <class A, class B>
struct IsMetadata<std::pair<A, B>> : std::conjunction<IsMetadata<A>, IsMetadata<B>> {};
template <class... M>
struct IsMetadata<Members<M...>> : std::conjunction<IsMetadata<M>...> {};
template <class T>
requires std::is_aggregate_v<T>
struct IsMetadata<T> : IsMetadata<decltype(members_of(std::declval<const T&>()))> {
};
template <class T>
struct IsMetadata<std::vector<T>>
    : std::conjunction<std::negation<std::is_arithmetic<T>>, IsMetadata<T>> {};

}  // namespace detail

/// A control-plane record: every member, however deep, is a scalar, string, shape or bounded JSON.
/// Tensors travel in the data plane only; this concept makes that a compile-time fact.
template <class T>
concept MetadataOnly = detail::IsMetadata<T>::value;

/// Bounds of free-form metadata: above them it is a payload, not a description.
struct MetadataLimits {
    static constexpr std::size_t string_bytes = 4096;
    static constexpr std::size_t list_items = 32;
    static constexpr std::size_t object_keys = 64;
    static constexpr int depth = 4;
};

/// Throws DataError when JSON that claims to be metadata carries a payload: a string, list or
/// object above MetadataLimits, binary, an object that describes tensor contents (keys "dtype" and
/// "shape"), or a number that is not finite. `where` names the file and field.
inline void check_metadata(const OrderedJson& value, const std::string& where, int depth = 0) {
    const auto refuse = [&](const std::string& what) {
        throw DataError(what, where,
                        "Control-plane records carry metadata only; put tensors into the store");
    };
    using Limits = MetadataLimits;
    if (depth > Limits::depth)
        refuse("nested deeper than " + std::to_string(Limits::depth) + " levels");
    if (value.is_binary()) refuse("binary payload");
    if (value.is_number_float() && !std::isfinite(value.get<double>()))
        refuse("a number that is not finite");
    if (value.is_string() && value.get_ref<const std::string&>().size() > Limits::string_bytes)
        refuse("a string of " + std::to_string(value.get_ref<const std::string&>().size()) +
               " bytes is a payload");
    if (value.is_array()) {
        if (value.size() > Limits::list_items)
            refuse("a list of " + std::to_string(value.size()) + " items is a payload");
        for (std::size_t i = 0; i < value.size(); ++i)
            check_metadata(value[i], where + "[" + std::to_string(i) + "]", depth + 1);
    }
    if (value.is_object()) {
        if (value.size() > Limits::object_keys)
            refuse("an object of " + std::to_string(value.size()) + " keys is a payload");
        if (value.contains("dtype") && value.contains("shape")) refuse("tensor payload");
        for (const auto& [key, item] : value.items())
            check_metadata(item, where + "." + key, depth + 1);
    }
}

}  // namespace eyas
