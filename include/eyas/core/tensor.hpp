#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <utility>

#include "eyas/core/dtype.hpp"
#include "eyas/core/memory_resource.hpp"
#include "eyas/core/shape.hpp"

namespace eyas {

namespace detail {
[[noreturn]] inline void wrong_element_type(DType have, DType want) {
    throw ContractError(
        "tensor holds " + std::string(name_of(have)) + ", read as " + std::string(name_of(want)),
        "TensorView", "Convert it first");
}

/// Memory for a tensor, to be given to free(); nullptr when there is none. Large ones lie in large
/// pages where the system has them: fewer faults and translations.
inline std::byte* allocate(std::size_t bytes, std::size_t alignment) {
    constexpr std::size_t large_page = std::size_t{2} << 20, from = 2 * large_page;
    const bool large = bytes >= from;
    void* p = nullptr;
    if (::posix_memalign(&p, large ? large_page : alignment, std::max(bytes, alignment)) != 0)
        return nullptr;
    if (large) ::madvise(p, bytes / large_page * large_page, MADV_HUGEPAGE);  // need not succeed
    return static_cast<std::byte*>(p);
}

/// Gives memory back to where it came from; nullptr: the host.
struct GiveBack {
    MemoryResource* from = nullptr;
    void operator()(std::byte* p) const { from ? from->release(p) : std::free(p); }
};
}  // namespace detail

/// Read-only view of a contiguous, row-major tensor. Owns nothing: whoever made it says how long
/// the bytes live.
struct TensorView {
    const std::byte* data = nullptr;
    DType dtype = DType::F32;
    Shape shape;

    std::int64_t elements() const { return shape.elements(); }
    std::size_t size_bytes() const { return static_cast<std::size_t>(elements()) * size_of(dtype); }
    std::span<const std::byte> bytes() const { return {data, size_bytes()}; }

    /// The elements as T; ContractError if dtype differs.
    template <class T>
    std::span<const T> as() const {
        if (dtype != dtype_of<T>) detail::wrong_element_type(dtype, dtype_of<T>);
        return {reinterpret_cast<const T*>(data), static_cast<std::size_t>(elements())};
    }
};

/// The same, writable.
struct MutableTensorView {
    std::byte* data = nullptr;
    DType dtype = DType::F32;
    Shape shape;

    operator TensorView() const { return {data, dtype, shape}; }
    std::size_t size_bytes() const { return TensorView(*this).size_bytes(); }
    std::span<std::byte> bytes() const { return {data, size_bytes()}; }

    template <class T>
    std::span<T> as() const {
        if (dtype != dtype_of<T>) detail::wrong_element_type(dtype, dtype_of<T>);
        return {reinterpret_cast<T*>(data), static_cast<std::size_t>(shape.elements())};
    }
};

/// A tensor with the name it has in a file, store or model.
struct NamedTensor {
    std::string name;
    TensorView tensor;
};

/// Caller-owned memory that a read fills; aligned for its dtype.
struct NamedBuffer {
    std::string name;
    MutableTensorView buffer;
};

/// Owning, 64-byte aligned, contiguous, row-major tensor in host memory, or in that of a device
/// when it is made with its resource (which must outlive it; the host may not touch the elements
/// then). Move-only: copies are named.
class Tensor {
public:
    static constexpr std::size_t alignment = 64;

    Tensor() = default;

    /// Uninitialised memory. Throws ResourceError when there is none.
    Tensor(DType dtype, const Shape& shape, MemoryResource* memory = nullptr)
        : dtype_(dtype), shape_(shape) {
        const auto bytes = static_cast<std::size_t>(shape.elements()) * size_of(dtype);
        if (memory) {
            data_ = {memory->allocate(bytes), detail::GiveBack{memory}};
            return;
        }
        data_.reset(detail::allocate(bytes, alignment));
        if (!data_)
            throw ResourceError("no memory for " + std::to_string(bytes) + " bytes",
                                "Tensor " + shape.text(),
                                "Use smaller batches or a larger machine");
    }

    static Tensor zeros(DType dtype, const Shape& shape) {
        Tensor t(dtype, shape);
        if (t.view().size_bytes()) std::memset(t.data_.get(), 0, t.view().size_bytes());
        return t;
    }
    static Tensor copy_of(const TensorView& v) {
        Tensor t(v.dtype, v.shape);
        if (v.size_bytes()) std::memcpy(t.data_.get(), v.data, v.size_bytes());
        return t;
    }

    bool empty() const { return !data_; }
    DType dtype() const { return dtype_; }
    const Shape& shape() const { return shape_; }
    std::int64_t elements() const { return shape_.elements(); }
    TensorView view() const { return {data_.get(), dtype_, shape_}; }
    MutableTensorView mutable_view() { return {data_.get(), dtype_, shape_}; }
    operator TensorView() const { return view(); }

    template <class T>
    std::span<const T> as() const {
        return view().template as<T>();
    }
    template <class T>
    std::span<T> as() {
        return mutable_view().template as<T>();
    }

private:
    std::unique_ptr<std::byte, detail::GiveBack> data_;
    DType dtype_ = DType::F32;
    Shape shape_;
};

}  // namespace eyas
