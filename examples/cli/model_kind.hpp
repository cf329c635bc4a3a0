#pragma once
#include <concepts>
#include <cstddef>
#include <cstdio>
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
#ifdef EYAS_CLI_CUDNN
#include "examples/cli/cudnn/attention.hpp"
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

/// Throws ContractError unless this program has that attention for such a draft: `strips` is there
/// for all, `cudnn` for bfloat16 on a GPU.
inline void require_attention(const std::string& attention, const std::string& device,
                              const std::string& precision) {
    if (attention == "strips") return;
    if (device != "cuda" || precision != Bf16::name)
        throw ContractError("cuDNN attends in bfloat16 on a GPU", "--attention " + attention,
                            "Add --device cuda --precision bfloat16, or leave --attention out");
#ifndef EYAS_CLI_CUDNN
    throw ContractError("this eyas was built without cuDNN", "--attention " + attention,
                        "Build eyas-cuda where cuDNN 9 and the headers of cudnn-frontend are "
                        "(tools/cuda/setup.sh), or leave --attention out");
#endif
}

/// The device that a draft is to be on, with its attention (require_attention).
template <class D>
D device_for(int gpu, [[maybe_unused]] const std::string& attention,
             [[maybe_unused]] std::size_t attention_workspace) {
    const D device = device_at<D>(gpu);
#ifdef EYAS_CLI_CUDNN
    if constexpr (requires { device.attend_by(nullptr); })
        if (attention == "cudnn")
            device.attend_by(cudnn_attention(gpu, attention_workspace), [](const SdpaUse& use) {
                std::fprintf(stderr, "eyas: %s did not take a shape, own strips attend: %s\n",
                             use.library.c_str(), use.why.c_str());
            });
#endif
    return device;
}

/// How a GPU attended by a library, for the user; empty where none was chosen.
template <class D>
std::string attention_text([[maybe_unused]] const D& device, const std::string& attention) {
    if constexpr (requires { device.attention_use(); })
        if (attention != "strips") return "attention: " + device.attention_use().text();
    return {};
}

/// What shows the stages of a training in the device's profiler; null where it has none.
inline std::unique_ptr<SpanListener> profiler_ranges([[maybe_unused]] const std::string& device) {
#ifdef EYAS_CLI_CUDA
    if (device == "cuda") return std::make_unique<CudaRanges>();
#endif
    return nullptr;
}

}  // namespace eyas::cli
