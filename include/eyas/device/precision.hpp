#pragma once
#include <concepts>
#include <string_view>

#include "eyas/core/dtype.hpp"

namespace eyas {

/// Of a draft in training: what parameters, hidden states and the target head are stored as. Sums,
/// softmax, losses, gradients of parameters and optimizer state are fp32 under both. Of a target:
/// what matrix products take their weights and inputs in.
struct F32 {
    using Element = float;
    static constexpr std::string_view name = "float32";
};
struct Bf16 {
    using Element = BFloat16;
    static constexpr std::string_view name = "bfloat16";
};

template <class P>
concept PrecisionPolicy = std::same_as<P, F32> || std::same_as<P, Bf16>;

}  // namespace eyas
