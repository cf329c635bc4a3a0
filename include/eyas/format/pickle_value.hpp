#pragma once
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/core/tensor.hpp"

namespace eyas {

struct PickleValue;
using PickleList = std::vector<PickleValue>;

struct PickleTuple {
    PickleList items;
};
struct PickleBytes {
    std::string data;
};

/// A Python dict (or OrderedDict) in insertion order.
struct PickleDict {
    std::vector<std::pair<PickleValue, PickleValue>> items;

    const PickleValue* find(std::string_view key) const;
    /// Appends; the caller keeps keys unique.
    void set(std::string key, PickleValue value);
};

/// What a torch file may hold: plain Python values and tensors, nothing that runs.
/// Tensors are views; TorchFile says how long they live, a writer reads them during the call.
struct PickleValue {
    using Value = std::variant<std::monostate, bool, std::int64_t, double, std::string, PickleBytes,
                               PickleList, PickleTuple, PickleDict, TensorView, DType>;
    Value value;

    PickleValue() = default;
    template <class T>
    requires(!std::same_as<std::remove_cvref_t<T>, PickleValue> &&
             std::constructible_from<Value, T>) PickleValue(T&& v)
        : value(std::forward<T>(v)) {}

    template <class T>
    const T* as() const {
        return std::get_if<T>(&value);
    }
    /// This dict's entry; DataError that names the key when this is no dict or has none.
    const PickleValue& at(std::string_view key, const std::string& where) const {
        const auto* d = as<PickleDict>();
        const auto* v = d ? d->find(key) : nullptr;
        if (!v)
            throw DataError("key '" + std::string(key) + "' is missing", where,
                            "Write the file again with it");
        return *v;
    }
    /// This value as T; DataError when it is something else.
    template <class T>
    const T& require(const std::string& where) const {
        if (const auto* v = as<T>()) return *v;
        throw DataError("a value of another type was expected", where, "Write the file again");
    }
};

inline const PickleValue* PickleDict::find(std::string_view key) const {
    for (const auto& [k, v] : items)
        if (const auto* s = k.as<std::string>(); s && *s == key) return &v;
    return nullptr;
}
inline void PickleDict::set(std::string key, PickleValue v) {
    items.emplace_back(PickleValue(std::move(key)), std::move(v));
}

}  // namespace eyas
