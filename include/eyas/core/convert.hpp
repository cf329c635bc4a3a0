#pragma once
#include <cstring>
#include <span>
#include <string>

#include "eyas/core/tensor.hpp"

namespace eyas {

/// Copies `from` into `to`, converting between float32 and bfloat16 (round to nearest even) where
/// the types differ. `n` elements. Shapes are the caller's business; element counts must agree.
/// Throws ContractError for any other pair of types.
inline void convert_into(const TensorView& from, const MutableTensorView& to) {
    if (from.elements() != to.shape.elements())
        throw ContractError(
            "element counts differ: " + from.shape.text() + " and " + to.shape.text(),
            "convert_into", "Pass a destination of the same size");
    if (from.dtype == to.dtype) {
        if (from.size_bytes()) std::memcpy(to.data, from.data, from.size_bytes());
    } else if (from.dtype == DType::BF16 && to.dtype == DType::F32) {
        auto in = from.as<BFloat16>();
        auto out = to.as<float>();
        for (std::size_t i = 0; i < in.size(); ++i) out[i] = static_cast<float>(in[i]);
    } else if (from.dtype == DType::F32 && to.dtype == DType::BF16) {
        auto in = from.as<float>();
        auto out = to.as<BFloat16>();
        for (std::size_t i = 0; i < in.size(); ++i) out[i] = BFloat16(in[i]);
    } else {
        throw ContractError("no conversion from " + std::string(name_of(from.dtype)) + " to " +
                                std::string(name_of(to.dtype)),
                            "convert_into", "Store features and weights as float32 or bfloat16");
    }
}

}  // namespace eyas
