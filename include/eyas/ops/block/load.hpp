#pragma once
#include <cstddef>

#include "eyas/core/tensor.hpp"
#include "eyas/device/block.hpp"
#include "eyas/ops/block/elementwise.hpp"

namespace eyas {

namespace detail {
/// From the host by upload(from, to, bytes), which may decline, and converted on the device. False:
/// it declined.
template <class T, BlockDevice Dev, class Upload>
bool load_by(const Dev& device, const TensorView& from, T* to, const Upload& upload) {
    if (from.dtype == dtype_of<T>) return upload(from.data, to, from.size_bytes());
    Tensor raw(from.dtype, from.shape, device.memory());
    if (!upload(from.data, raw.mutable_view().data, from.size_bytes())) return false;
    convert_on(device, raw, {reinterpret_cast<std::byte*>(to), dtype_of<T>, from.shape});
    return true;
}
}  // namespace detail

template <class T, BlockDevice Dev>
void load(const Dev& device, const TensorView& from, T* to) {
    detail::load_by(device, from, to, [&](const void* p, void* there, std::size_t bytes) {
        device.upload(p, there, bytes);
        return true;
    });
}

template <class T, BlockDevice Dev>
bool load_ahead(const Dev& device, const TensorView& from, T* to) {
    if constexpr (requires { device.upload_ahead(from.data, to, std::size_t{}); })
        return detail::load_by(device, from, to,
                               [&](const void* p, void* there, std::size_t bytes) {
                                   return device.upload_ahead(p, there, bytes);
                               });
    else
        return false;
}

}  // namespace eyas
