#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include "eyas/device/cuda_context.cuh"
#include "eyas/device/cuda_error.cuh"
#include "eyas/device/cuda_sdpa.cuh"
#include "eyas/device/cudnn_frontend.cuh"

namespace eyas {

struct CudnnSdpaOptions {
    /// The backward gives the same bits each time. On GPUs before Blackwell it then keeps a tile of
    /// [B, H, T, T] bfloat16 as workspace; without, sums are atomic and workspace goes with T.
    bool deterministic = true;
    /// Bytes; a shape that wants more is refused.
    std::size_t workspace_limit = std::size_t{1} << 30;
};

namespace detail {

constexpr const char* cudnn_remedy =
    "Take a cuDNN 9 that fits the driver and the GPU, or attend by the own strips";

inline void check_cudnn(cudnnStatus_t s, const std::string& call) {
    if (s != CUDNN_STATUS_SUCCESS) throw ResourceError(cudnnGetErrorString(s), call, cudnn_remedy);
}
/// A handle, which its plans keep.
using CudnnHandle = std::shared_ptr<std::remove_pointer_t<cudnnHandle_t>>;
inline CudnnHandle make_cudnn() {
    cudnnHandle_t handle = nullptr;
    check_cudnn(cudnnCreate(&handle), "cudnnCreate");
    return Owned<cudnnHandle_t, cudnnDestroy>(handle);
}

/// cuDNN's graph of one shape: scaled dot-product attention with its causal mask from the top left
/// and the lengths of each batch row; the forward with log-sums (cuDNN's statistics), or the
/// backward. Keeps the handle alive.
class CudnnSdpaPlan final : public SdpaPlan {
public:
    /// `why` stays empty, or says why cuDNN does not take the shape: then the plan is no good.
    CudnnSdpaPlan(CudnnHandle handle, const SdpaShape& shape, const CudnnSdpaOptions& options,
                  std::string& why)
        : handle_(std::move(handle)), shape_(shape), options_(options) {
        build(why);
    }
    /// Of a GPU that need not be there, only to learn whether cuDNN takes the shape, and with how
    /// much workspace. `sm`: its compute capability, 90 for 9.0.
    CudnnSdpaPlan(std::shared_ptr<const cudnn_frontend::DeviceProperties> gpu, int sm,
                  const SdpaShape& shape, const CudnnSdpaOptions& options, std::string& why)
        : shape_(shape), options_(options) {
        graph_.set_device_properties(std::move(gpu)).set_sm_version(sm);
        build(why);
    }

    std::size_t workspace_bytes() const override { return workspace_bytes_; }

    void execute(const SdpaArrays& a, void* workspace, cudaStream_t stream) override {
        check_cudnn(cudnnSetStream(handle_.get(), stream), "cudnnSetStream");
        // cuDNN's list has no const; what is only read stays as it is.
        std::unordered_map<std::int64_t, void*> arrays{{Q, const_cast<BFloat16*>(a.q)},
                                                       {K, const_cast<BFloat16*>(a.k)},
                                                       {V, const_cast<BFloat16*>(a.v)},
                                                       {Out, a.out},
                                                       {LogSum, a.log_sum},
                                                       {Rows, a.rows},
                                                       {Keys, a.keys}};
        if (shape_.backward())
            arrays.insert(
                {{DOut, const_cast<BFloat16*>(a.d_out)}, {DQ, a.dq}, {DK, a.dk}, {DV, a.dv}});
        check(graph_.execute(handle_.get(), arrays, workspace), "execute");
    }

private:
    struct fe {
        using DataType_t = cudnn_frontend::DataType_t;
        using HeurMode_t = cudnn_frontend::HeurMode_t;
    };
    using Attributes = cudnn_frontend::graph::Tensor_attributes;
    using TensorPtr = std::shared_ptr<Attributes>;
    enum Id : std::int64_t { Q = 1, K, V, Out, LogSum, Rows, Keys, DOut, DQ, DK, DV };

    void build(std::string& why) {
        graph_.set_io_data_type(fe::DataType_t::BFLOAT16)
            .set_intermediate_data_type(fe::DataType_t::FLOAT)
            .set_compute_data_type(fe::DataType_t::FLOAT);
        shape_.backward() ? describe_backward() : describe_forward();
        const bool built = takes(graph_.validate(), "validate", why) &&
                           takes(handle_ ? graph_.build_operation_graph(handle_.get())
                                         : graph_.build_operation_graph(),
                                 "build_operation_graph", why) &&
                           takes(graph_.create_execution_plans({fe::HeurMode_t::A}),
                                 "create_execution_plans", why) &&
                           takes(graph_.check_support(), "check_support", why) &&
                           takes(graph_.build_plans(), "build_plans", why);
        if (!built) return;
        std::int64_t bytes = 0;
        check(graph_.get_workspace_size(bytes), "get_workspace_size");
        workspace_bytes_ = static_cast<std::size_t>(bytes);
        if (workspace_bytes_ > options_.workspace_limit)
            why = "cuDNN wants " + std::to_string(bytes) + " bytes of workspace, more than " +
                  std::to_string(options_.workspace_limit);
    }

    /// [B, heads, T, E] in rows of `stride` elements.
    template <class A>
    A& in_rows(A& t, Id id, std::int64_t heads, std::int64_t stride) const {
        t.set_uid(id)
            .set_dim({shape_.batch, heads, shape_.tokens, shape_.head_dim})
            .set_stride({shape_.tokens * stride, shape_.head_dim, stride, 1});
        return t;
    }
    TensorPtr rows_of(Id id, std::int64_t heads, std::int64_t stride) {
        Attributes t;
        return graph_.tensor(in_rows(t, id, heads, stride));
    }
    void gives(const TensorPtr& t, Id id, std::int64_t heads, std::int64_t stride) const {
        in_rows(*t, id, heads, stride).set_output(true);
    }
    /// log_sum [B, H, T] as [B, H, T, 1]
    template <class A>
    A& sums(A& t) const {
        t.set_uid(LogSum)
            .set_dim({shape_.batch, shape_.heads, shape_.tokens, 1})
            .set_stride({shape_.heads * shape_.tokens, shape_.tokens, 1, 1})
            .set_data_type(fe::DataType_t::FLOAT);
        return t;
    }
    TensorPtr lengths(Id id) {
        return graph_.tensor(Attributes()
                                 .set_uid(id)
                                 .set_dim({shape_.batch, 1, 1, 1})
                                 .set_stride({1, 1, 1, 1})
                                 .set_data_type(fe::DataType_t::INT32));
    }
    template <class A>
    A masked(A options, const char* name) {
        options.set_name(name)
            .set_attn_scale(shape_.scale)
            .set_causal_mask(true)
            .set_padding_mask(true)
            .set_seq_len_q(lengths(Rows))
            .set_seq_len_kv(lengths(Keys));
        return options;
    }

    void describe_forward() {
        const auto& s = shape_;
        auto options = masked(cudnn_frontend::graph::SDPA_attributes(), "attention");
        options.set_generate_stats(true);
        auto [out, log_sum] =
            graph_.sdpa(rows_of(Q, s.heads, s.q_stride), rows_of(K, s.kv_heads, s.kv_stride),
                        rows_of(V, s.kv_heads, s.kv_stride), std::move(options));
        gives(out, Out, s.heads, s.out_stride);
        sums(*log_sum).set_output(true);
    }

    void describe_backward() {
        const auto& s = shape_;
        auto options =
            masked(cudnn_frontend::graph::SDPA_backward_attributes(), "attention's gradient");
        options.set_deterministic_algorithm(options_.deterministic);
        Attributes log_sum;
        auto [dq, dk, dv] = graph_.sdpa_backward(
            rows_of(Q, s.heads, s.q_stride), rows_of(K, s.kv_heads, s.kv_stride),
            rows_of(V, s.kv_heads, s.kv_stride), rows_of(Out, s.heads, s.out_stride),
            rows_of(DOut, s.heads, s.d_out_stride), graph_.tensor(sums(log_sum)),
            std::move(options));
        gives(dq, DQ, s.heads, s.dq_stride);
        gives(dk, DK, s.kv_heads, s.kv_heads * s.head_dim);
        gives(dv, DV, s.kv_heads, s.kv_heads * s.head_dim);
    }

    /// False: no engine for this. Throws ResourceError where a call failed, also one that
    /// cudnn-frontend tells as if there were no engine.
    bool takes(const cudnn_frontend::error_t& e, const char* call, std::string& why) const {
        using Code = cudnn_frontend::error_code_t;
        if (e.is_good()) return true;
        const auto says = [&](const char* word) {
            return e.err_msg.find(word) != std::string::npos;
        };
        constexpr std::array failures{"ALLOC_FAILED", "INTERNAL_ERROR", "EXECUTION_FAILED",
                                      "SUBLIBRARY"};
        constexpr std::array refusals{
            Code::GRAPH_NOT_SUPPORTED,    Code::UNSUPPORTED_GRAPH_FORMAT,
            Code::INVALID_VALUE,          Code::ATTRIBUTE_NOT_SET,
            Code::HEURISTIC_QUERY_FAILED, Code::GRAPH_EXECUTION_PLAN_CREATION_FAILED};
        const bool refused = says("CUDNN_STATUS_NOT_SUPPORTED") ||
                             std::ranges::find(refusals, e.code) != refusals.end();
        if (std::ranges::any_of(failures, says) || !refused) check(e, call);
        why = "cuDNN's " + std::string(call) + ": " + e.err_msg;
        return false;
    }
    void check(const cudnn_frontend::error_t& e, const char* call) const {
        if (e.is_good()) return;
        throw ResourceError(e.err_msg, "cuDNN's " + std::string(call) + " of attention " + text(),
                            cudnn_remedy);
    }
    std::string text() const {
        return std::string(shape_.backward() ? "backward" : "forward") +
               " batch=" + std::to_string(shape_.batch) +
               " tokens=" + std::to_string(shape_.tokens) +
               " heads=" + std::to_string(shape_.heads) + "/" + std::to_string(shape_.kv_heads) +
               " head_dim=" + std::to_string(shape_.head_dim);
    }

    CudnnHandle handle_;  // none: of a GPU that is not here
    SdpaShape shape_;
    CudnnSdpaOptions options_;
    cudnn_frontend::graph::Graph graph_;
    std::size_t workspace_bytes_ = 0;
};

}  // namespace detail

/// cuDNN's fused attention (flash attention on tensor cores), for Cuda::attend_by. Needs cuDNN 9
/// and the headers of cudnn-frontend. Of one GPU, that of the Cuda which attends by
/// it. A plan takes cuDNN some tenths of a second for each new shape and direction. One thread.
class CudnnSdpa final : public SdpaLibrary {
public:
    /// Throws ResourceError where cuDNN does not work on this GPU.
    explicit CudnnSdpa(int ordinal = 0, const CudnnSdpaOptions& options = {})
        : ordinal_(ordinal), options_(options) {
        detail::CudaContext::make_current(ordinal_);
        handle_ = detail::make_cudnn();
    }
    std::string name() const override {
        const auto v = cudnnGetVersion();
        return "cuDNN " + std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." +
               std::to_string(v % 100);
    }
    std::unique_ptr<SdpaPlan> plan(const SdpaShape& shape, std::string& why) override {
        detail::CudaContext::make_current(ordinal_);
        auto plan = std::make_unique<detail::CudnnSdpaPlan>(handle_, shape, options_, why);
        if (!why.empty()) plan.reset();
        return plan;
    }

private:
    int ordinal_;
    CudnnSdpaOptions options_;
    detail::CudnnHandle handle_;
};

}  // namespace eyas
