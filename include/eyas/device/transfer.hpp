#pragma once
#include <span>
#include <utility>

#include "eyas/device/concept.hpp"

namespace eyas {

/// A host tensor where the device works on it: itself, or a copy in the device's memory.
template <Device D>
Tensor on_device(const D& device, Tensor host) {
    if (!device.memory()) return host;
    Tensor t(host.dtype(), host.shape(), device.memory());
    device.upload(host.view().data, t.mutable_view().data, host.view().size_bytes());
    return t;
}

/// A tensor of zeros that the device works on.
template <Device D>
Tensor zeros_on(const D& device, DType dtype, const Shape& shape) {
    Tensor t(dtype, shape, device.memory());
    device.zero(t.mutable_view().data, t.view().size_bytes());
    return t;
}

/// A copy in the host's memory of what lies in the device's.
template <Device D>
Tensor on_host(const D& device, const TensorView& v) {
    Tensor t(v.dtype, v.shape);
    device.download(v.data, t.mutable_view().data, v.size_bytes());
    return t;
}

/// The first n elements of an array, from host to device memory and back; sizes are in elements.
template <class T, Device D>
void upload(const D& device, std::span<const T> from, T* to) {
    device.upload(from.data(), to, from.size_bytes());
}
template <class T, Device D>
void download(const D& device, const T* from, std::span<T> to) {
    device.download(from, to.data(), to.size_bytes());
}

}  // namespace eyas
