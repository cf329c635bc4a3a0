// The functions of cuBLASLt that eyas calls; fake_cuda.hpp says what they do here.
#include <cublasLt.h>

#include <cstring>
#include <optional>

#include "eyas/device/host_block.hpp"
#include "fake_cuda.hpp"
#include "state.hpp"

using namespace eyas;
using namespace eyas::fake_cuda;

namespace {

#define EYAS_FAKE_ENTER(call) \
    if (const auto planned = status(call); planned != CUBLAS_STATUS_SUCCESS) return planned

cublasStatus_t status(const char* call) {
    const int s = enter(call);
    if (s == 0) return CUBLAS_STATUS_SUCCESS;
    return State::get().fault ? CUBLAS_STATUS_EXECUTION_FAILED : static_cast<cublasStatus_t>(s);
}

cublasStatus_t refused(const std::string& why) {
    misuse(why);
    return CUBLAS_STATUS_INVALID_VALUE;
}

struct Layout {
    cudaDataType_t type{};
    std::uint64_t rows = 0, columns = 0;
    std::int64_t ld = 0, stride = 0;
    std::int32_t count = 1;
    bool operator==(const Layout&) const = default;

    std::size_t element() const { return type == CUDA_R_32F ? 4 : 2; }
    std::size_t bytes() const {
        return element() * static_cast<std::size_t>((count - 1) * stride +
                                                    (static_cast<std::int64_t>(columns) - 1) * ld +
                                                    static_cast<std::int64_t>(rows));
    }
};
struct Product {
    cublasComputeType_t compute{};
    std::int32_t op_a = CUBLAS_OP_N, op_b = CUBLAS_OP_N;
    bool operator==(const Product&) const = default;
};
struct Wish {
    std::uint64_t workspace = 0;
    std::uint32_t a = 256, b = 256, c = 256, d = 256;  // cuBLASLt assumes that much
};
/// What an algorithm was chosen for; its number is all that the caller sees.
struct Choice {
    Product product;
    Layout a, b, c, d;
    Wish wish;
};

/// Objects of one kind by handle, and what an algorithm's number means.
template <class T>
std::map<const void*, T>& all() {
    static std::map<const void*, T> objects;
    return objects;
}
std::vector<Choice>& choices() {
    static std::vector<Choice> made;
    return made;
}

template <class T>
constexpr const char* kind = std::is_same_v<T, Layout>    ? "cublasLtMatrixLayout"
                             : std::is_same_v<T, Product> ? "cublasLtMatmulDesc"
                             : std::is_same_v<T, Wish>    ? "cublasLtMatmulPreference"
                                                          : "cublasLtHandle";

std::mutex& objects_mutex() {
    static std::mutex mutex;
    return mutex;
}

template <class T, class H>
void create(H* handle, const T& object) {
    {
        auto& s = State::get();
        const std::lock_guard lock(s.mutex);
        *handle = new_handle<H>(s);
    }
    add_handle(kind<T>, *handle);
    const std::lock_guard lock(objects_mutex());
    all<T>()[*handle] = object;
}
template <class T, class H>
cublasStatus_t destroy(H handle, const char* call) {
    const auto planned = status(call);
    if (!remove_handle(kind<T>, handle, call)) return CUBLAS_STATUS_INVALID_VALUE;
    const std::lock_guard lock(objects_mutex());
    all<T>().erase(handle);
    return planned;
}
template <class T, class H>
std::optional<T> look_up(H handle, const char* call) {
    if (!known_handle(kind<T>, handle, call)) return {};
    const std::lock_guard lock(objects_mutex());
    return all<T>()[handle];
}
/// Changes one member of an object by the caller's bytes, whose number has to be the member's.
template <class T, class H, class F>
cublasStatus_t change(H handle, const char* call, const void* from, std::size_t bytes, F member) {
    if (!known_handle(kind<T>, handle, call)) return CUBLAS_STATUS_INVALID_VALUE;
    const std::lock_guard lock(objects_mutex());
    const auto [to, size] = member(all<T>()[handle]);
    if (!to || size != bytes)
        return refused(std::string(call) + ": an attribute that it does not know, or its size");
    std::memcpy(to, from, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
using Member = std::pair<void*, std::size_t>;
template <class V>
Member member(V& v) {
    return {&v, sizeof v};
}

/// Why a product cannot be: null where it can.
const char* misfit(const Choice& x) {
    const auto rows = [](const Layout& l, std::int32_t op) {
        return op == CUBLAS_OP_N ? std::pair(l.rows, l.columns) : std::pair(l.columns, l.rows);
    };
    const auto [m, k] = rows(x.a, x.product.op_a);
    const auto [k_of_b, n] = rows(x.b, x.product.op_b);
    if (k != k_of_b || m != x.d.rows || n != x.d.columns || !(x.c == x.d))
        return "the shapes do not fit";
    if (x.a.count != x.d.count || x.b.count != x.d.count) return "batches of several sizes";
    for (const auto* l : {&x.a, &x.b, &x.d})
        if (l->ld < static_cast<std::int64_t>(l->rows)) return "a leading dimension is too small";
    if (x.a.type != x.b.type || x.product.compute != CUBLAS_COMPUTE_32F)
        return "a product that it does not know";
    return nullptr;
}

bool aligned(const void* p, std::uint32_t bytes) {
    return reinterpret_cast<std::uintptr_t>(p) % bytes == 0;
}

/// Column-major D = A B is row-major D^T = B^T A^T.
template <class T, class TC>
void multiply(const Choice& x, const void* a, const void* b, const void* c, void* d, float alpha,
              float beta) {
    const auto op = [](std::int32_t o) { return o == CUBLAS_OP_N ? Op::None : Op::Transposed; };
    const auto n = static_cast<std::int64_t>(x.d.rows), m = static_cast<std::int64_t>(x.d.columns),
               k = static_cast<std::int64_t>(x.product.op_a == CUBLAS_OP_N ? x.a.columns
                                                                           : x.a.rows);
    detail::product_on_host(BatchedMatmul<T, TC>{
        {op(x.product.op_b), op(x.product.op_a), m, n, k, static_cast<const T*>(b), x.b.ld,
         static_cast<const T*>(a), x.a.ld, static_cast<TC*>(d), x.d.ld, alpha, beta},
        x.d.count,
        x.b.stride,
        x.a.stride,
        x.d.stride,
        c == d ? nullptr : static_cast<const TC*>(c)});
}

}  // namespace

extern "C" {

const char* cublasLtGetStatusString(cublasStatus_t) { return "the fake's words for it"; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    EYAS_FAKE_ENTER("cublasLtCreate");
    create(handle, 0);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    return destroy<int>(handle, "cublasLtDestroy");
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          std::uint64_t rows, std::uint64_t columns,
                                          std::int64_t ld) {
    EYAS_FAKE_ENTER("cublasLtMatrixLayoutCreate");
    create(layout, Layout{.type = type, .rows = rows, .columns = columns, .ld = ld});
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    return destroy<Layout>(layout, "cublasLtMatrixLayoutDestroy");
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t name,
                                                const void* from, std::size_t bytes) {
    EYAS_FAKE_ENTER("cublasLtMatrixLayoutSetAttribute");
    return change<Layout>(layout, "cublasLtMatrixLayoutSetAttribute", from, bytes, [&](Layout& l) {
        return name == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT            ? member(l.count)
               : name == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET ? member(l.stride)
                                                                     : Member{};
    });
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* product, cublasComputeType_t compute,
                                        cudaDataType_t) {
    EYAS_FAKE_ENTER("cublasLtMatmulDescCreate");
    create(product, Product{.compute = compute});
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
    return destroy<Product>(product, "cublasLtMatmulDescDestroy");
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                              cublasLtMatmulDescAttributes_t name, const void* from,
                                              std::size_t bytes) {
    EYAS_FAKE_ENTER("cublasLtMatmulDescSetAttribute");
    return change<Product>(product, "cublasLtMatmulDescSetAttribute", from, bytes, [&](Product& p) {
        return name == CUBLASLT_MATMUL_DESC_TRANSA   ? member(p.op_a)
               : name == CUBLASLT_MATMUL_DESC_TRANSB ? member(p.op_b)
                                                     : Member{};
    });
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* wish) {
    EYAS_FAKE_ENTER("cublasLtMatmulPreferenceCreate");
    create(wish, Wish{});
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t wish) {
    return destroy<Wish>(wish, "cublasLtMatmulPreferenceDestroy");
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t wish,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void* from, std::size_t bytes) {
    EYAS_FAKE_ENTER("cublasLtMatmulPreferenceSetAttribute");
    const char* call = "cublasLtMatmulPreferenceSetAttribute";
    static std::uint32_t of_no_effect_here = 0;
    return change<Wish>(wish, call, from, bytes, [&](Wish& w) {
        switch (name) {
            case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
                return member(w.workspace);
            case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
                return member(w.a);
            case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
                return member(w.b);
            case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
                return member(w.c);
            case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
                return member(w.d);
            case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
                return member(of_no_effect_here);
            default:
                return Member{};
        }
    });
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t wish, int most,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* count) {
    const char* call = "cublasLtMatmulAlgoGetHeuristic";
    EYAS_FAKE_ENTER(call);
    const auto p = look_up<Product>(product, call);
    const auto la = look_up<Layout>(a, call), lb = look_up<Layout>(b, call),
               lc = look_up<Layout>(c, call), ld = look_up<Layout>(d, call);
    const auto w = look_up<Wish>(wish, call);
    if (!known_handle(kind<int>, handle, call) || !p || !la || !lb || !lc || !ld || !w || most < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    const Choice choice{*p, *la, *lb, *lc, *ld, *w};
    if (const char* why = misfit(choice)) return refused(std::string(call) + ": " + why);
    *count = 0;
    if (State::get().no_algorithms) return CUBLAS_STATUS_NOT_SUPPORTED;
    const std::lock_guard lock(objects_mutex());
    choices().push_back(choice);
    results[0] = {};
    results[0].algo.data[0] = choices().size();
    results[0].workspaceSize = w->workspace;
    results[0].state = CUBLAS_STATUS_SUCCESS;
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                              const void* alpha, const void* A, cublasLtMatrixLayout_t a,
                              const void* B, cublasLtMatrixLayout_t b, const void* beta,
                              const void* C, cublasLtMatrixLayout_t c, void* D,
                              cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t* algorithm,
                              void* workspace, std::size_t workspace_bytes, cudaStream_t stream) {
    const char* call = "cublasLtMatmul";
    EYAS_FAKE_ENTER(call);
    const auto p = look_up<Product>(product, call);
    const auto la = look_up<Layout>(a, call), lb = look_up<Layout>(b, call),
               lc = look_up<Layout>(c, call), ld = look_up<Layout>(d, call);
    const auto on = stream_of(stream, call);
    if (!known_handle(kind<int>, handle, call) || !p || !la || !lb || !lc || !ld || !on)
        return CUBLAS_STATUS_INVALID_VALUE;
    Choice x{*p, *la, *lb, *lc, *ld, {}};
    {
        const std::lock_guard lock(objects_mutex());
        if (!algorithm || algorithm->data[0] < 1 || algorithm->data[0] > choices().size())
            return refused("cublasLtMatmul: no algorithm");
        const auto& chosen = choices()[algorithm->data[0] - 1];
        x.wish = chosen.wish;
        if (!(chosen.product == x.product && chosen.a == x.a && chosen.b == x.b &&
              chosen.c == x.c && chosen.d == x.d))
            return refused("cublasLtMatmul: the algorithm of another product");
    }
    if (!aligned(A, x.wish.a) || !aligned(B, x.wish.b) || !aligned(C, x.wish.c) ||
        !aligned(D, x.wish.d) || workspace_bytes < x.wish.workspace)
        return refused("cublasLtMatmul: alignment or workspace");
    const float scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
    const auto overlap = [&] {
        const auto from = reinterpret_cast<std::uintptr_t>(C),
                   to = reinterpret_cast<std::uintptr_t>(D);
        return C != D && keep != 0.f && from < to + x.d.bytes() && to < from + x.c.bytes();
    };
    if (overlap()) return refused("cublasLtMatmul: C and D overlap");
    const auto ranges = [=] {
        return device_range("cublasLtMatmul A", A, x.a.bytes()) &&
               device_range("cublasLtMatmul B", B, x.b.bytes()) &&
               (keep == 0.f || device_range("cublasLtMatmul C", C, x.c.bytes())) &&
               device_range("cublasLtMatmul D", D, x.d.bytes()) &&
               device_range("cublasLtMatmul workspace", workspace, workspace_bytes);
    };
    if (!ranges()) return CUBLAS_STATUS_INVALID_VALUE;
    enqueue_on(on, call, [=] {
        if (!ranges()) return;
        if (x.a.type == CUDA_R_32F && x.d.type == CUDA_R_32F)
            multiply<float, float>(x, A, B, C, D, scale, keep);
        else if (x.a.type == CUDA_R_16BF && x.d.type == CUDA_R_32F)
            multiply<BFloat16, float>(x, A, B, C, D, scale, keep);
        else if (x.a.type == CUDA_R_16BF && x.d.type == CUDA_R_16BF)
            multiply<BFloat16, BFloat16>(x, A, B, C, D, scale, keep);
        else
            misuse("cublasLtMatmul: types that it does not know");
    });
    return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
