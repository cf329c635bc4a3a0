#pragma once
#include <algorithm>
#include <cstdint>

#include "eyas/core/convert.hpp"
#include "eyas/device/concept.hpp"

namespace eyas {

/// to[r] = from[index[r]], or zeros where the index is negative. to [n, width].
template <class T, Device Dev>
void gather_rows(const Dev& device, const T* from, const std::int64_t* index, T* to, std::int64_t n,
                 std::int64_t width) {
    device.for_each_row(n, [=](std::int64_t r) {
        if (index[r] < 0)
            std::fill_n(to + r * width, width, T(0.f));
        else
            std::copy_n(from + index[r] * width, width, to + r * width);
    });
}

/// to[index[r]] = from[r]; no index twice. from [n, width].
template <class T, Device Dev>
void scatter_rows(const Dev& device, const T* from, const std::int64_t* index, T* to,
                  std::int64_t n, std::int64_t width) {
    device.for_each_row(
        n, [=](std::int64_t r) { std::copy_n(from + r * width, width, to + index[r] * width); });
}

/// Columns [0, width) of n rows, `from_stride` apart, to rows that are `to_stride` apart.
template <class T, Device Dev>
void copy_columns(const Dev& device, const T* from, std::int64_t from_stride, T* to,
                  std::int64_t to_stride, std::int64_t n, std::int64_t width) {
    for_each_light_row(device, n, width, [=](std::int64_t r) {
        std::copy_n(from + r * from_stride, width, to + r * to_stride);
    });
}

/// to[r] = T(from[r]) for n rows of `width`; those of `to` are `stride` apart.
template <class T, Device Dev>
void round_rows(const Dev& device, const float* from, T* to, std::int64_t stride, std::int64_t n,
                std::int64_t width) {
    device.for_each_row(n, [=](std::int64_t r) {
        for (std::int64_t j = 0; j < width; ++j) to[r * stride + j] = T(from[r * width + j]);
    });
}

/// to[i] += from[i], rounded to T.
template <class T, Device Dev>
void add(const Dev& device, T* to, const T* from, std::int64_t n) {
    device.for_each(n, [=](std::int64_t i) {
        to[i] = T(static_cast<float>(to[i]) + static_cast<float>(from[i]));
    });
}

/// to[i] = T(from[i]).
template <class T, Device Dev>
void round_into(const Dev& device, const float* from, T* to, std::int64_t n) {
    device.for_each(n, [=](std::int64_t i) { to[i] = T(from[i]); });
}

/// Rounds numbers to T's precision; they stay floats.
template <class T, Device Dev>
void round_in_place(const Dev& device, float* z, std::int64_t n) {
    device.for_each(n, [=](std::int64_t i) { z[i] = static_cast<float>(T(z[i])); });
}

/// convert_into where both lie in the device's memory.
template <Device Dev>
void convert_on(const Dev&, const TensorView& from, const MutableTensorView& to) {
    convert_into(from, to);
}

/// convert_into from the host's memory to the device's.
template <class T, Device Dev>
void load(const Dev&, const TensorView& from, T* to) {
    convert_into(from, {reinterpret_cast<std::byte*>(to), dtype_of<T>, from.shape});
}

/// load() of what is needed later, while the device still works on what it was told before. False:
/// nothing was done, since the device does not do that, or not with memory of this kind.
template <class T, Device Dev>
bool load_ahead(const Dev&, const TensorView&, T*) {
    return false;
}

}  // namespace eyas
