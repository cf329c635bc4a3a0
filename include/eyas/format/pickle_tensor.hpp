#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eyas/core/tensor.hpp"

namespace eyas {

/// A storage that a pickle refers to: its entry's key, the element type of its class (none for
/// UntypedStorage) and its length in elements (bytes for UntypedStorage).
struct StorageRef {
    std::string key;
    std::optional<DType> dtype;
    std::uint64_t count = 0;
};

/// "torch FloatStorage" -> F32; nothing for other globals.
inline std::optional<DType> storage_dtype(std::string_view global) {
    for (const auto& r : detail::dtype_table)
        if (!r.storage.empty() && global == "torch " + std::string(r.storage)) return r.dtype;
    return std::nullopt;
}

/// "torch bfloat16" -> BF16; nothing for other globals.
inline std::optional<DType> dtype_of_global(std::string_view global) {
    for (const auto& r : detail::dtype_table)
        if (global == "torch " + std::string(r.torch)) return r.dtype;
    return std::nullopt;
}

/// Makes contiguous views of tensors over the storages of one file. A tensor that lies contiguous
/// in its storage is viewed in place; a strided one is copied once, into memory that the builder
/// keeps. Views live as long as the builder and the file's bytes. One thread.
class TensorBuilder {
public:
    /// `storage(key)` gives a storage's bytes or throws DataError; `largest_copy` bounds the bytes
    /// of all strided copies (a small file can describe a huge expanded tensor).
    TensorBuilder(std::function<std::span<const std::byte>(const std::string&)> storage,
                  std::string where, std::uint64_t largest_copy = std::uint64_t{1} << 32)
        : storage_(std::move(storage)), where_(std::move(where)), copy_budget_(largest_copy) {}

    /// Throws DataError for extents or strides that leave the storage.
    TensorView build(const StorageRef& s, DType dtype, std::int64_t offset,
                     const std::vector<std::int64_t>& sizes,
                     const std::vector<std::int64_t>& strides) {
        const auto size = size_of(dtype);
        const auto bytes = storage_(s.key);
        const std::uint64_t unit = s.dtype ? size_of(*s.dtype) : 1;
        if (s.count > bytes.size() / unit)
            fail(s, "is " + std::to_string(bytes.size()) + " bytes, shorter than it says");
        if (sizes.size() != strides.size() || sizes.size() > Shape::max_rank || offset < 0)
            fail(s, "has a tensor of impossible shape");
        const Shape shape{std::span<const std::int64_t>(sizes)};
        const auto elements = shape.elements();
        const auto available = static_cast<std::int64_t>(s.count * unit / size);
        std::int64_t last = offset;  // of the element furthest back
        for (std::size_t i = 0; i < sizes.size() && elements > 0; ++i) {
            if (strides[i] < 0 ||
                (sizes[i] > 1 && strides[i] > (available - last) / (sizes[i] - 1)))
                fail(s, "is left by a tensor " + shape.text());
            last += strides[i] * (sizes[i] - 1);
        }
        if (elements > 0 ? last >= available : offset > available)
            fail(s, "is left by a tensor " + shape.text());
        const std::byte* begin = bytes.data() + static_cast<std::uint64_t>(offset) * size;
        if (elements == 0 || contiguous(sizes, strides)) return {begin, dtype, shape};
        return copy(begin, dtype, shape, strides);
    }

private:
    [[noreturn]] void fail(const StorageRef& s, const std::string& what) const {
        throw DataError("storage " + s.key + " " + what, where_,
                        "The file is damaged; write it again");
    }

    static bool contiguous(const std::vector<std::int64_t>& sizes,
                           const std::vector<std::int64_t>& strides) {
        std::int64_t want = 1;
        for (auto i = sizes.size(); i-- > 0;) {
            if (sizes[i] != 1 && strides[i] != want) return false;
            want *= sizes[i];
        }
        return true;
    }

    TensorView copy(const std::byte* from, DType dtype, const Shape& shape,
                    const std::vector<std::int64_t>& strides) {
        const auto size = size_of(dtype);
        const auto total = static_cast<std::uint64_t>(shape.elements()) * size;
        if (total > copy_budget_)
            throw ResourceError(
                "a strided tensor " + shape.text() + " needs " + std::to_string(total) + " bytes",
                where_, "Save it with .contiguous()");
        copy_budget_ -= total;
        auto t = std::make_shared<Tensor>(dtype, shape);
        std::byte* to = t->mutable_view().data;
        std::vector<std::int64_t> index(shape.rank(), 0);
        for (std::int64_t n = shape.elements(); n > 0; --n, to += size) {
            std::int64_t at = 0;
            for (std::size_t i = 0; i < index.size(); ++i) at += index[i] * strides[i];
            std::copy_n(from + static_cast<std::uint64_t>(at) * size, size, to);
            for (auto i = index.size(); i-- > 0 && ++index[i] == shape[i];) index[i] = 0;
        }
        copies_.push_back(t);
        return t->view();
    }

    std::function<std::span<const std::byte>(const std::string&)> storage_;
    std::string where_;
    std::uint64_t copy_budget_;
    std::vector<std::shared_ptr<Tensor>> copies_;
};

}  // namespace eyas
