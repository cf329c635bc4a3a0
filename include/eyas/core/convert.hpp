#pragma once
#include <cstring>
#include <span>
#include <string>

#include "eyas/core/float16.hpp"
#include "eyas/core/tensor.hpp"

namespace eyas {

namespace detail {
template <class From, class To>
void convert_elements(const TensorView& from, const MutableTensorView& to) {
    const auto in = from.as<From>();
    const auto out = to.as<To>();
    for (std::size_t i = 0; i < in.size(); ++i) out[i] = To(static_cast<float>(in[i]));
}
}  // namespace detail

/// Copies `from` into `to`, converting where the types differ: between float32 and bfloat16, and
/// from float16 to either. Widening is exact; bfloat16 is rounded to, to nearest even. Shapes are
/// the caller's business; element counts must agree. Throws ContractError for any other pair of
/// types.
inline void convert_into(const TensorView& from, const MutableTensorView& to) {
    const auto types = [&](DType in, DType out) { return from.dtype == in && to.dtype == out; };
    if (from.elements() != to.shape.elements())
        throw ContractError(
            "element counts differ: " + from.shape.text() + " and " + to.shape.text(),
            "convert_into", "Pass a destination of the same size");
    if (from.dtype == to.dtype) {
        if (from.size_bytes()) std::memcpy(to.data, from.data, from.size_bytes());
    } else if (types(DType::BF16, DType::F32)) {
        detail::convert_elements<BFloat16, float>(from, to);
    } else if (types(DType::F32, DType::BF16)) {
        detail::convert_elements<float, BFloat16>(from, to);
    } else if (types(DType::F16, DType::F32)) {
        detail::convert_elements<Float16, float>(from, to);
    } else if (types(DType::F16, DType::BF16)) {
        detail::convert_elements<Float16, BFloat16>(from, to);
    } else {
        throw ContractError("no conversion from " + std::string(name_of(from.dtype)) + " to " +
                                std::string(name_of(to.dtype)),
                            "convert_into", "Store features and weights as float32 or bfloat16");
    }
}

}  // namespace eyas
