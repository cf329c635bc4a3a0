#pragma once
#include <CLI/CLI.hpp>
#include <string>

#include "eyas/device/precision.hpp"

namespace eyas::cli {

/// In which precision a target multiplies.
struct TargetPrecision {
    std::string name{F32::name};

    CLI::Option* declare(CLI::App& app) {
        return app
            .add_option("--target-precision", name,
                        "of the target's matrix products: float32, or bfloat16, to which their "
                        "weights and inputs are rounded: faster on processors "
                        "with AVX-512 BF16")
            ->capture_default_str()
            ->check(CLI::IsMember({std::string(F32::name), std::string(Bf16::name)}));
    }

    /// f(F32()) or f(Bf16()).
    template <class F>
    auto with(const F& f) const {
        return name == Bf16::name ? f(Bf16()) : f(F32());
    }
};

}  // namespace eyas::cli
