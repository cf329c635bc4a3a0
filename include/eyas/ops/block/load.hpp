#pragma once
#include "eyas/core/tensor.hpp"
#include "eyas/device/block.hpp"
#include "eyas/ops/block/elementwise.hpp"

namespace eyas {

template <class T, BlockDevice Dev>
void load(const Dev& device, const TensorView& from, T* to) {
    if (from.dtype == dtype_of<T>) return device.upload(from.data, to, from.size_bytes());
    Tensor raw(from.dtype, from.shape, device.memory());
    device.upload(from.data, raw.mutable_view().data, from.size_bytes());
    convert_on(device, raw, {reinterpret_cast<std::byte*>(to), dtype_of<T>, from.shape});
}

template <class T, BlockDevice Dev>
bool load_ahead(const Dev& device, const TensorView& from, T* to) {
    if constexpr (requires { device.carries(from.data, from.size_bytes()); })
        if (device.carries(from.data, from.size_bytes())) return load(device, from, to), true;
    return false;
}

}  // namespace eyas
