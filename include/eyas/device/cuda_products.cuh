#pragma once
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "eyas/device/block.hpp"
#include "eyas/device/cuda_error.cuh"

namespace eyas::detail {

template <class T>
constexpr cudaDataType_t cuda_type = std::same_as<T, float> ? CUDA_R_32F : CUDA_R_16BF;

/// Products of cuBLASLt, and the algorithm that it chose for each shape the first time. Float is
/// multiplied as float (no TF32); sums are fp32, also where partial sums are joined. One thread.
class CudaProducts {
public:
    CudaProducts() {
        cublasLtHandle_t handle = nullptr;
        check_cublas(cublasLtCreate(&handle), "cublasLtCreate");
        handle_.reset(handle);
    }

    /// `workspace` has workspace_bytes and belongs to the stream. False: cuBLASLt has no algorithm
    /// for this shape, nothing was done.
    template <class T, class TC>
    bool run(const BatchedMatmul<T, TC>& x, void* workspace, cudaStream_t stream) {
        const auto& e = x.each;
        const Plan& p = plan(x);
        if (!p.found) return false;
        // Row-major C = A B is column-major C^T = B^T A^T: the operands change places.
        check_cublas(cublasLtMatmul(handle_.get(), p.product.get(), &e.alpha, e.b, p.b.get(), e.a,
                                    p.a.get(), &e.beta, x.added(), p.c.get(), e.c, p.c.get(),
                                    &p.algorithm, workspace, workspace_bytes, stream),
                     "cublasLtMatmul " + text(x));
        return true;
    }

    static constexpr std::size_t workspace_bytes = std::size_t{64} << 20;

private:
    using Product = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
    using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
    using Wish = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;
    struct Plan {
        Product product;
        Layout a, b, c;
        cublasLtMatmulAlgo_t algorithm{};
        bool found = false;
    };
    using Key = std::array<std::int64_t, 19>;

    /// The largest power of two, up to 256, that divides an address and the distance to the next.
    static std::uint32_t alignment(const void* p, std::int64_t stride, std::size_t size) {
        const auto bits = reinterpret_cast<std::uintptr_t>(p) |
                          (static_cast<std::uintptr_t>(stride) * size) | 256u;
        return static_cast<std::uint32_t>(bits & (~bits + 1));
    }

    template <class T, class TC>
    static std::string text(const BatchedMatmul<T, TC>& x) {
        const auto& e = x.each;
        return std::string(1, static_cast<char>(e.op_a)) + static_cast<char>(e.op_b) +
               " m=" + std::to_string(e.m) + " n=" + std::to_string(e.n) +
               " k=" + std::to_string(e.k) + " lda=" + std::to_string(e.lda) +
               " ldb=" + std::to_string(e.ldb) + " ldc=" + std::to_string(e.ldc) +
               " batch=" + std::to_string(x.count);
    }

    template <class T, class TC>
    const Plan& plan(const BatchedMatmul<T, TC>& x) {
        const auto& e = x.each;
        const auto sa = alignment(e.a, x.stride_a, sizeof(T)),
                   sb = alignment(e.b, x.stride_b, sizeof(T)),
                   sc = alignment(x.added(), x.stride_c, sizeof(TC)),
                   sd = alignment(e.c, x.stride_c, sizeof(TC));
        const Key key{cuda_type<T>,
                      cuda_type<TC>,
                      static_cast<char>(e.op_a),
                      static_cast<char>(e.op_b),
                      e.m,
                      e.n,
                      e.k,
                      e.lda,
                      e.ldb,
                      e.ldc,
                      x.count,
                      x.stride_a,
                      x.stride_b,
                      x.stride_c,
                      sa,
                      sb,
                      sc,
                      sd,
                      e.beta != 0.f};
        const auto it = plans_.find(key);
        if (it != plans_.end()) return it->second;
        Plan p;
        describe(x, p);
        choose(p, sa, sb, sc, sd, text(x));
        return plans_.emplace(key, std::move(p)).first->second;
    }

    template <class V>
    static void set(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t name, V value) {
        check_cublas(cublasLtMatmulDescSetAttribute(d, name, &value, sizeof value),
                     "cublasLtMatmulDescSetAttribute");
    }
    template <class V>
    static void set(cublasLtMatrixLayout_t d, cublasLtMatrixLayoutAttribute_t name, V value) {
        check_cublas(cublasLtMatrixLayoutSetAttribute(d, name, &value, sizeof value),
                     "cublasLtMatrixLayoutSetAttribute");
    }
    template <class V>
    static void set(cublasLtMatmulPreference_t d, cublasLtMatmulPreferenceAttributes_t name,
                    V value) {
        check_cublas(cublasLtMatmulPreferenceSetAttribute(d, name, &value, sizeof value),
                     "cublasLtMatmulPreferenceSetAttribute");
    }

    /// A row-major matrix [rows, width] is a column-major one [width, rows].
    static Layout layout(cudaDataType_t type, std::int64_t rows, std::int64_t width,
                         std::int64_t ld, std::int64_t count, std::int64_t stride) {
        cublasLtMatrixLayout_t l = nullptr;
        check_cublas(cublasLtMatrixLayoutCreate(&l, type, static_cast<std::uint64_t>(width),
                                                static_cast<std::uint64_t>(rows), ld),
                     "cublasLtMatrixLayoutCreate");
        Layout owned(l);
        set(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<std::int32_t>(count));
        set(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, stride);
        return owned;
    }

    template <class T, class TC>
    static void describe(const BatchedMatmul<T, TC>& x, Plan& p) {
        const auto& e = x.each;
        const bool ta = e.op_a == Op::Transposed, tb = e.op_b == Op::Transposed;
        cublasLtMatmulDesc_t product = nullptr;
        check_cublas(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                     "cublasLtMatmulDescCreate");
        p.product.reset(product);
        set(product, CUBLASLT_MATMUL_DESC_TRANSA, tb ? CUBLAS_OP_T : CUBLAS_OP_N);
        set(product, CUBLASLT_MATMUL_DESC_TRANSB, ta ? CUBLAS_OP_T : CUBLAS_OP_N);
        p.a = layout(cuda_type<T>, ta ? e.k : e.m, ta ? e.m : e.k, e.lda, x.count, x.stride_a);
        p.b = layout(cuda_type<T>, tb ? e.n : e.k, tb ? e.k : e.n, e.ldb, x.count, x.stride_b);
        p.c = layout(cuda_type<TC>, e.m, e.n, e.ldc, x.count, x.stride_c);
    }

    /// Alignments are those of the arrays a, b, what is added, c.
    void choose(Plan& p, std::uint32_t sa, std::uint32_t sb, std::uint32_t sc, std::uint32_t sd,
                const std::string& what) {
        cublasLtMatmulPreference_t wish = nullptr;
        check_cublas(cublasLtMatmulPreferenceCreate(&wish), "cublasLtMatmulPreferenceCreate");
        const Wish owned(wish);
        set(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_bytes});
        set(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
            std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
        set(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, sb);
        set(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, sa);
        set(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, sc);
        set(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, sd);
        cublasLtMatmulHeuristicResult_t found{};
        int count = 0;
        const auto status =
            cublasLtMatmulAlgoGetHeuristic(handle_.get(), p.product.get(), p.b.get(), p.a.get(),
                                           p.c.get(), p.c.get(), wish, 1, &found, &count);
        if (status == CUBLAS_STATUS_NOT_SUPPORTED ||
            (status == CUBLAS_STATUS_SUCCESS && count == 0))
            return;
        check_cublas(status, "cublasLtMatmulAlgoGetHeuristic " + what);
        p.algorithm = found.algo;
        p.found = true;
    }

    Owned<cublasLtHandle_t, cublasLtDestroy> handle_;
    std::map<Key, Plan> plans_;
};

}  // namespace eyas::detail
