#pragma once
#include <concepts>
#include <memory>
#include <string>

#include "eyas/core/error.hpp"
#include "eyas/core/span.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/model/eagle3.hpp"
#ifdef EYAS_CLI_CUDA
#include "eyas/device/cuda.cuh"
#include "eyas/device/cuda_ranges.cuh"
#include "eyas/ops/block/all.hpp"
#endif

namespace eyas::cli {

/// A type of draft, without one.
template <class M>
struct ModelKind {};

namespace detail {
template <class D, class F>
auto with_precision_on(const std::string& precision, const F& f) {
    return precision == Bf16::name ? f(ModelKind<Eagle3<D, Bf16>>())
                                   : f(ModelKind<Eagle3<D, F32>>());
}
}  // namespace detail

/// The device of a draft; of GPUs the one with this number.
template <class D>
D device_at([[maybe_unused]] int gpu) {
    if constexpr (std::constructible_from<D, int>)
        return D(gpu);
    else
        return D();
}

/// Calls f(ModelKind<M>()) for the draft that options name: `device` cpu or cuda, `precision`
/// float32 or bfloat16. Throws ContractError for a device that this program was built without.
template <class F>
auto with_model_kind(const std::string& device, const std::string& precision, const F& f) {
    if (device == "cpu") return detail::with_precision_on<Cpu>(precision, f);
#ifdef EYAS_CLI_CUDA
    return detail::with_precision_on<Cuda>(precision, f);
#else
    throw ContractError("this eyas was built without CUDA", "--device " + device,
                        "Use eyas-cuda (bazel build //examples/cli:eyas-cuda)");
#endif
}

/// What shows the stages of a training in the device's profiler; null where it has none.
inline std::unique_ptr<SpanListener> profiler_ranges([[maybe_unused]] const std::string& device) {
#ifdef EYAS_CLI_CUDA
    if (device == "cuda") return std::make_unique<CudaRanges>();
#endif
    return nullptr;
}

}  // namespace eyas::cli
