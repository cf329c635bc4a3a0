#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "eyas/format/safetensors.hpp"
#include "eyas/format/torch_file.hpp"

namespace eyas {

/// One tensor that is not bitwise the same on both sides.
struct TensorDifference {
    std::string name;  // "model.safetensors: fc.weight" when directories were compared
    std::string what;  // "values", "only in the first", "only in the second", "dtype", "shape"
    std::int64_t count = 0;  // elements whose bits differ (what == "values")
    std::int64_t elements = 0;
    // Largest |a - b| over them; infinite where one is NaN; NaN for types without arithmetic here
    // (float16, float8, complex).
    double max_abs = 0;
};

struct Comparison {
    std::int64_t tensors = 0;  // names on either side
    std::int64_t bytes = 0;    // compared
    std::vector<TensorDifference> differences;
    bool identical() const { return differences.empty(); }
};

namespace detail {
template <class T>
double as_double(const std::byte* p) {
    T v;
    std::memcpy(&v, p, sizeof v);
    if constexpr (std::same_as<T, BFloat16>)
        return static_cast<double>(static_cast<float>(v));
    else
        return static_cast<double>(v);
}

inline double element_value(DType d, const std::byte* p) {
    switch (d) {
        case DType::F64:
            return as_double<double>(p);
        case DType::F32:
            return as_double<float>(p);
        case DType::BF16:
            return as_double<BFloat16>(p);
        case DType::I64:
            return as_double<std::int64_t>(p);
        case DType::I32:
            return as_double<std::int32_t>(p);
        case DType::I16:
            return as_double<std::int16_t>(p);
        case DType::I8:
            return as_double<std::int8_t>(p);
        case DType::U64:
            return as_double<std::uint64_t>(p);
        case DType::U32:
            return as_double<std::uint32_t>(p);
        case DType::U16:
            return as_double<std::uint16_t>(p);
        case DType::U8:
        case DType::Bool:
            return as_double<std::uint8_t>(p);
        default:
            return std::numeric_limits<double>::quiet_NaN();
    }
}

inline bool has_arithmetic(DType d) {
    return d != DType::F16 && d != DType::F8E4M3 && d != DType::F8E5M2 && d != DType::C64 &&
           d != DType::C128;
}

inline TensorDifference compare_values(const std::string& name, const TensorView& a,
                                       const TensorView& b) {
    TensorDifference d{name, "values", 0, a.elements(), 0};
    const auto size = size_of(a.dtype);
    for (std::int64_t i = 0; i < d.elements; ++i) {
        const auto* x = a.data + static_cast<std::size_t>(i) * size;
        const auto* y = b.data + static_cast<std::size_t>(i) * size;
        if (std::memcmp(x, y, size) == 0) continue;
        ++d.count;
        const double gap = std::abs(element_value(a.dtype, x) - element_value(a.dtype, y));
        d.max_abs =
            std::isnan(gap) ? std::numeric_limits<double>::infinity() : std::max(d.max_abs, gap);
    }
    if (!has_arithmetic(a.dtype)) d.max_abs = std::numeric_limits<double>::quiet_NaN();
    return d;
}

inline bool is_torch_file(const std::filesystem::path& p) {
    const auto name = p.filename().string();
    return name.ends_with(".pt") || name.ends_with(".ckpt") || name.ends_with(".ckpt.gz");
}
inline bool is_tensor_file(const std::filesystem::path& p) {
    return p.extension() == ".safetensors" || is_torch_file(p);
}

/// Tensors by name, and the opened files that the views point into.
struct TensorSet {
    std::vector<SafetensorsFile> safetensors;
    std::vector<TorchFile> torch;
    std::map<std::string, TensorView> tensors;

    void add_file(const std::filesystem::path& path, const std::string& prefix) {
        if (is_torch_file(path)) {
            add_value(torch.emplace_back(path).root(), prefix, "");
        } else {
            for (const auto& t : safetensors.emplace_back(path).tensors())
                tensors.emplace(prefix + t.name, t.tensor);
        }
    }

    /// Tensors in dicts (whose keys may be numbers, as in optimizer states), lists and tuples,
    /// under the path to them: "optimizer.fp32_params.0".
    void add_value(const PickleValue& v, const std::string& name, const std::string& separator) {
        const auto add_items = [&](const PickleList& items) {
            for (std::size_t i = 0; i < items.size(); ++i)
                add_value(items[i], name + separator + std::to_string(i), ".");
        };
        if (const auto* t = v.as<TensorView>()) tensors.emplace(name, *t);
        if (const auto* list = v.as<PickleList>()) add_items(*list);
        if (const auto* tuple = v.as<PickleTuple>()) add_items(tuple->items);
        const auto* dict = v.as<PickleDict>();
        for (std::size_t i = 0; dict && i < dict->items.size(); ++i) {
            const auto& [key, value] = dict->items[i];
            if (const auto* text = key.as<std::string>())
                add_value(value, name + separator + *text, ".");
            else if (const auto* number = key.as<std::int64_t>())
                add_value(value, name + separator + std::to_string(*number), ".");
        }
    }

    explicit TensorSet(const std::filesystem::path& path) {
        if (!std::filesystem::is_directory(path)) {
            add_file(path, "");
            return;
        }
        for (const auto& e : std::filesystem::directory_iterator(path))
            if (is_tensor_file(e.path())) add_file(e.path(), e.path().filename().string() + ": ");
        if (tensors.empty())
            throw DataError("no .safetensors, .pt or .ckpt file with a tensor", path.string(),
                            "Name a checkpoint directory or a tensor file");
    }
};
}  // namespace detail

/// Compares two files (safetensors or torch) or two directories of such files, tensor by tensor and
/// bit by bit; files in directories are matched by name. Throws DataError for a file that cannot be
/// read.
inline Comparison compare_tensors(const std::filesystem::path& first,
                                  const std::filesystem::path& second) {
    const detail::TensorSet a(first), b(second);
    std::set<std::string> names;
    for (const auto* side : {&a, &b})
        for (const auto& [name, unused] : side->tensors) names.insert(name);
    Comparison c;
    for (const auto& name : names) {
        ++c.tensors;
        const auto x = a.tensors.find(name), y = b.tensors.find(name);
        if (x == a.tensors.end() || y == b.tensors.end()) {
            c.differences.push_back(
                {name, y == b.tensors.end() ? "only in the first" : "only in the second"});
        } else if (x->second.dtype != y->second.dtype) {
            c.differences.push_back({name, "dtype"});
        } else if (!(x->second.shape == y->second.shape)) {
            c.differences.push_back({name, "shape"});
        } else {
            c.bytes += static_cast<std::int64_t>(x->second.size_bytes());
            if (x->second.size_bytes() &&
                std::memcmp(x->second.data, y->second.data, x->second.size_bytes()) != 0)
                c.differences.push_back(detail::compare_values(name, x->second, y->second));
        }
    }
    return c;
}

}  // namespace eyas
