#pragma once
#include <dnnl.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "eyas/core/error.hpp"

namespace eyas::detail {

/// Throws ContractError unless oneDNN took it.
inline void check_dnnl(dnnl_status_t status, const char* call, std::int64_t m, std::int64_t n,
                       std::int64_t k) {
    if (status == dnnl_success) return;
    throw ContractError(
        std::string("oneDNN refused ") + call + " (status " + std::to_string(status) + ")",
        "Cpu::matmul m=" + std::to_string(m) + " n=" + std::to_string(n) +
            " k=" + std::to_string(k),
        "Check the leading dimensions");
}

/// Owner of one of oneDNN's objects.
template <class H, dnnl_status_t (*destroy)(H)>
class DnnlObject {
public:
    DnnlObject() = default;
    DnnlObject(const DnnlObject&) = delete;
    DnnlObject& operator=(const DnnlObject&) = delete;
    ~DnnlObject() {
        if (object_) destroy(object_);
    }
    H* slot() { return &object_; }
    operator H() const { return object_; }

private:
    H object_ = nullptr;
};
using DnnlEngine = DnnlObject<dnnl_engine_t, dnnl_engine_destroy>;
using DnnlStream = DnnlObject<dnnl_stream_t, dnnl_stream_destroy>;
using DnnlMemory = DnnlObject<dnnl_memory_t, dnnl_memory_destroy>;
using DnnlPrimitive = DnnlObject<dnnl_primitive_t, dnnl_primitive_destroy>;
using DnnlDescription = DnnlObject<dnnl_primitive_desc_t, dnnl_primitive_desc_destroy>;
using DnnlIterator =
    DnnlObject<dnnl_primitive_desc_iterator_t, dnnl_primitive_desc_iterator_destroy>;
using DnnlAttributes = DnnlObject<dnnl_primitive_attr_t, dnnl_primitive_attr_destroy>;
using DnnlPostOps = DnnlObject<dnnl_post_ops_t, dnnl_post_ops_destroy>;

/// Products x W^T of one weight W [out, in] with W in blocks, laid out once for many of them: a
/// 1x1 convolution over a line of `rows` points. Its kernels read such blocks directly, where a
/// plain product copies or strides over W every time (0.6 of the rate below 270 rows with AVX2).
/// oneDNN keeps the code that it generates for a number of rows. Callable from any thread.
class PackedProduct {
public:
    PackedProduct(std::int64_t out, std::int64_t in) : out_(out), in_(in) {
        if (out < lanes || out % lanes != 0 || in < lanes || in % lanes != 0) return;
        weights_ = described({out, in, 1, 1}, dnnl_format_tag_any);
        DnnlDescription found;
        if (describe(found, 64, false) != dnnl_success) return;
        const auto* chosen = dnnl_primitive_desc_query_md(found, dnnl_query_weights_md, 0);
        supported_ = chosen && dnnl_memory_desc_get_size(chosen) == bytes();
        if (supported_) weights_ = *chosen;
    }

    /// Whether this processor has kernels for it; else nothing here may be called.
    bool supported() const { return supported_; }

    /// W [out, in] into its blocks, out * in numbers too.
    void pack(const float* weight, float* packed) const {
        const auto plain = described({out_, in_, 1, 1}, dnnl_oihw);
        DnnlDescription description;
        check(dnnl_reorder_primitive_desc_create(description.slot(), &plain, engine(), &weights_,
                                                 engine(), nullptr),
              "a reorder of weights", 0);
        DnnlMemory from, to;
        wrap(from, plain, weight), wrap(to, weights_, packed);
        run(description, {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}}, 0);
    }

    /// y [rows, out] = x W^T, or y += x W^T. x [rows, in].
    void multiply(const float* x, const float* packed, float* y, std::int64_t rows,
                  bool add) const {
        DnnlDescription description;
        check(describe(description, rows, add), "a product with packed weights", rows);
        const auto in = rows_of(rows, in_), out = rows_of(rows, out_);
        DnnlMemory source, weight, result;
        wrap(source, in, x), wrap(weight, weights_, packed), wrap(result, out, y);
        run(description,
            {{DNNL_ARG_SRC, source}, {DNNL_ARG_WEIGHTS, weight}, {DNNL_ARG_DST, result}}, rows);
    }

private:
    static constexpr std::int64_t lanes = 16;  // of the widest blocks: nothing is padded

    static const DnnlEngine& engine() {
        static const DnnlEngine& one = *[] {
            auto* e = new DnnlEngine;  // lives until the process ends: threads may multiply then
            check_dnnl(dnnl_engine_create(e->slot(), dnnl_cpu, 0), "an engine", 0, 0, 0);
            return e;
        }();
        return one;
    }

    std::size_t bytes() const { return static_cast<std::size_t>(out_ * in_) * sizeof(float); }
    void check(dnnl_status_t status, const char* call, std::int64_t rows) const {
        check_dnnl(status, call, rows, out_, in_);
    }

    struct Dims {
        std::int64_t count, channels, height, width;
    };
    dnnl_memory_desc_t described(const Dims& d, dnnl_format_tag_t tag) const {
        dnnl_memory_desc_t description;
        const dnnl_dims_t dims{d.count, d.channels, d.height, d.width};
        check(dnnl_memory_desc_init_by_tag(&description, 4, dims, dnnl_f32, tag), "a shape",
              d.width);
        return description;
    }
    dnnl_memory_desc_t rows_of(std::int64_t rows, std::int64_t width) const {
        return described({1, width, 1, rows}, dnnl_nhwc);
    }
    void wrap(DnnlMemory& memory, const dnnl_memory_desc_t& d, const float* data) const {
        check(dnnl_memory_create(memory.slot(), &d, engine(), const_cast<float*>(data)),
              "memory of a product", 0);
    }

    /// By the kernels that take blocks of any number of rows and give each row the same bits beside
    /// any others; with AVX-512 others (brgconv) are offered first, which do neither.
    dnnl_status_t describe(DnnlDescription& to, std::int64_t rows, bool add) const {
        const auto in = rows_of(rows, in_), out = rows_of(rows, out_);
        const dnnl_dims_t stride{1, 1}, padding{0, 0};
        dnnl_convolution_desc_t convolution;
        const auto status = dnnl_convolution_forward_desc_init(
            &convolution, dnnl_forward_inference, dnnl_convolution_direct, &in, &weights_, nullptr,
            &out, stride, padding, padding);
        if (status != dnnl_success) return status;
        DnnlPostOps sum;
        DnnlAttributes attributes;
        check(dnnl_post_ops_create(sum.slot()), "a sum", rows);
        if (add) check(dnnl_post_ops_append_sum(sum, 1.f), "a sum", rows);
        check(dnnl_primitive_attr_create(attributes.slot()), "a sum", rows);
        check(dnnl_primitive_attr_set_post_ops(attributes, sum), "a sum", rows);
        DnnlIterator offers;
        auto offer = dnnl_primitive_desc_iterator_create(offers.slot(), &convolution, attributes,
                                                         engine(), nullptr);
        for (; offer == dnnl_success; offer = dnnl_primitive_desc_iterator_next(offers)) {
            DnnlDescription one;
            *one.slot() = dnnl_primitive_desc_iterator_fetch(offers);
            const char* name = nullptr;
            check(dnnl_primitive_desc_query(one, dnnl_query_impl_info_str, 0, &name),
                  "to name a kernel", rows);
            if (!std::string_view(name).starts_with("jit_1x1")) continue;
            std::swap(*to.slot(), *one.slot());
            return dnnl_success;
        }
        return offer;
    }

    template <int N>
    void run(const DnnlDescription& description, const dnnl_exec_arg_t (&arguments)[N],
             std::int64_t rows) const {
        DnnlPrimitive primitive;
        DnnlStream stream;
        check(dnnl_primitive_create(primitive.slot(), description), "a kernel", rows);
        check(dnnl_stream_create(stream.slot(), engine(), dnnl_stream_default_flags), "a stream",
              rows);
        check(dnnl_primitive_execute(primitive, stream, N, arguments), "to run", rows);
        check(dnnl_stream_wait(stream), "to wait", rows);
    }

    std::int64_t out_, in_;
    bool supported_ = false;
    dnnl_memory_desc_t weights_{};
};

}  // namespace eyas::detail
