#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "eyas/core/convert.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/device/concept.hpp"

namespace eyas {

/// out[r] = table[ids[r]]; ids must be in [0, V) (the model checks a batch before it starts).
/// table [V, D], ids [N], out [N, D]. The draft's embedding is frozen: there is no backward.
template <class T, Device Dev>
void embedding(const Dev& device, const T* table, const std::int64_t* ids, T* out,
               std::int64_t rows, std::int64_t width) {
    device.for_each_row(rows, [=](std::int64_t r) {
        const T* from = table + ids[r] * width;
        std::copy(from, from + width, out + r * width);
    });
}

/// The same in fp32 of a table in any float type, which lies in the host's memory. out [N, D].
/// Throws ContractError for a type that convert_into() does not know.
template <Device Dev>
void embed_rows(const Dev& device, const TensorView& table, std::span<const std::int64_t> ids,
                float* out) {
    const auto width = table.shape[1];
    const auto row = static_cast<std::size_t>(width) * size_of(table.dtype);
    if (table.dtype != DType::F32 && table.dtype != DType::BF16 && table.dtype != DType::F16)
        throw ContractError("an embedding in " + std::string(name_of(table.dtype)), "embed_rows",
                            "Use float32, bfloat16 or float16");
    for_each_light_row(device, std::ssize(ids), width, [&](std::int64_t r) {
        const auto id = static_cast<std::size_t>(ids[static_cast<std::size_t>(r)]);
        convert_into({table.data + id * row, table.dtype, {width}},
                     {reinterpret_cast<std::byte*>(out + r * width), DType::F32, {width}});
    });
}

/// Moves each document's values left by `by`; its tail becomes `fill`. in, out [B, T]; document
/// [B, T]: the row of the first token of each row's document, ascending.
template <Device Dev>
void shift_left(const Dev&, const std::int64_t* in, std::int64_t* out, const std::int64_t* document,
                std::int64_t batch, std::int64_t tokens, std::int64_t by, std::int64_t fill) {
    for (std::int64_t b = 0; b < batch; ++b)
        for (std::int64_t t = 0; t < tokens; ++t) {
            const auto to = b * tokens + t, from = to + by;
            out[to] = t + by < tokens && document[from] == document[to] ? in[from] : fill;
        }
}

}  // namespace eyas
