#include "cudnn_graph.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "eyas/core/bfloat16.hpp"

namespace eyas::fake_cuda {
namespace {

std::size_t size_of(cudnnDataType_t type) {
    return type == CUDNN_DATA_BFLOAT16 ? 2 : type == CUDNN_DATA_BOOLEAN ? 1 : 4;
}

/// Calls f with each index of `dims` and its number, the last dimension fastest.
template <class F>
void each_index(const std::vector<std::int64_t>& dims, F f) {
    std::vector<std::int64_t> i(dims.size(), 0);
    std::int64_t n = 1;
    for (const auto d : dims) n *= d;
    for (std::int64_t number = 0; number < n; ++number) {
        f(i, static_cast<std::size_t>(number));
        for (auto d = dims.size(); d-- > 0 && ++i[d] == dims[d];) i[d] = 0;
    }
}

/// Where an index of another tensor is in one of `dims`: a dimension that has fewer is shared by as
/// many neighbours (one for all, or one for each group of heads).
std::size_t number_of(const std::vector<std::int64_t>& i, const std::vector<std::int64_t>& of,
                      const std::vector<std::int64_t>& dims) {
    std::int64_t n = 0;
    for (std::size_t d = 0; d < dims.size(); ++d) n = n * dims[d] + i[d] * dims[d] / of[d];
    return static_cast<std::size_t>(n);
}

float load(const std::byte* p, cudnnDataType_t type) {
    const auto as = [&](auto v) {
        std::memcpy(&v, p, sizeof v);
        return static_cast<float>(v);
    };
    switch (type) {
        case CUDNN_DATA_BFLOAT16:
            return as(BFloat16());
        case CUDNN_DATA_INT32:
            return as(std::int32_t());
        default:
            return as(float());
    }
}
void store(std::byte* p, cudnnDataType_t type, float v) {
    if (type == CUDNN_DATA_BFLOAT16) {
        const BFloat16 narrow(v);
        std::memcpy(p, &narrow, sizeof narrow);
    } else {
        std::memcpy(p, &v, sizeof v);
    }
}

float pointwise(int mode, float x, float b, float t) {
    switch (mode) {
        case CUDNN_POINTWISE_ADD:
            return x + b;
        case CUDNN_POINTWISE_SUB:
            return x - b;
        case CUDNN_POINTWISE_MUL:
            return x * b;
        case CUDNN_POINTWISE_DIV:
            return x / b;
        case CUDNN_POINTWISE_EXP:
            return std::exp(x);
        case CUDNN_POINTWISE_LOG:
            return std::log(x);
        case CUDNN_POINTWISE_IDENTITY:
            return x;
        case CUDNN_POINTWISE_CMP_GT:
            return x > b;
        case CUDNN_POINTWISE_CMP_GE:
            return x >= b;
        case CUDNN_POINTWISE_CMP_LT:
            return x < b;
        case CUDNN_POINTWISE_LOGICAL_AND:
            return x != 0 && b != 0;
        case CUDNN_POINTWISE_BINARY_SELECT:
            return t != 0 ? x : b;
        default:
            return std::numeric_limits<float>::quiet_NaN();  // unsupported() has told
    }
}

/// The values of one execution's tensors, in fp32 without gaps.
class Values {
public:
    explicit Values(const GraphArrays& arrays) : arrays_(arrays) {}

    const std::vector<float>& of(const GraphTensor& t) {
        auto& v = all_[t.uid];
        if (v.empty()) read(t, v);
        return v;
    }
    void set(const GraphTensor& t, std::vector<float> v) {
        if (t.type == CUDNN_DATA_BFLOAT16)
            for (float& x : v) x = static_cast<float>(BFloat16(x));
        if (!t.is_virtual) {
            auto* p = static_cast<std::byte*>(arrays_.pointers.at(t.uid));
            each_index(t.dims, [&](const auto& i, std::size_t n) {
                if (!std::isnan(v[n])) store(p + offset(t, i), t.type, v[n]);
            });
        }
        all_[t.uid] = std::move(v);
    }

private:
    static std::size_t offset(const GraphTensor& t, const std::vector<std::int64_t>& i) {
        return static_cast<std::size_t>(t.offset(i)) * size_of(t.type);
    }
    void read(const GraphTensor& t, std::vector<float>& v) const {
        if (t.by_value) return v.assign(1, arrays_.values.at(t.uid));
        const auto* p = static_cast<const std::byte*>(arrays_.pointers.at(t.uid));
        v.resize(static_cast<std::size_t>(t.elements()));
        each_index(t.dims,
                   [&](const auto& i, std::size_t n) { v[n] = load(p + offset(t, i), t.type); });
    }

    const GraphArrays& arrays_;
    std::map<std::int64_t, std::vector<float>> all_;
};

/// How many of `all` rows, columns or terms count in a batch.
std::int64_t counted(const std::optional<GraphTensor>& t, std::int64_t batch, std::int64_t all,
                     Values& values) {
    return t ? static_cast<std::int64_t>(values.of(*t)[static_cast<std::size_t>(batch)]) : all;
}

std::vector<float> matmul(const GraphOp& op, Values& values) {
    const auto &a = op.in[0], &b = op.in[1];
    const auto &x = values.of(a), &y = values.of(b);
    std::vector<float> out(static_cast<std::size_t>(op.out.elements()), 0.f);
    auto of_row = op.out.dims, of_column = op.out.dims;
    of_row[3] = a.dims[3], of_column[2] = b.dims[2];
    each_index(op.out.dims, [&](const auto& i, std::size_t n) {
        if (i[2] >= counted(op.rows, i[0], op.out.dims[2], values)) {
            out[n] = std::numeric_limits<float>::quiet_NaN();  // is not written
            return;
        }
        if (i[3] >= counted(op.columns, i[0], op.out.dims[3], values)) return;  // padding is 0
        const float* p = x.data() + number_of({i[0], i[1], i[2], 0}, of_row, a.dims);
        const float* q = y.data() + number_of({i[0], i[1], 0, i[3]}, of_column, b.dims);
        const auto terms = counted(op.depth, i[0], a.dims[3], values);
        for (std::int64_t e = 0; e < terms; ++e) out[n] += p[e] * q[e * b.dims[3]];
    });
    return out;
}

/// The same memory with other dimensions and strides.
std::vector<float> reshape(const GraphOp& op, Values& values) {
    const auto& from = values.of(op.in[0]);
    std::map<std::int64_t, float> memory;
    each_index(op.in[0].dims,
               [&](const auto& i, std::size_t n) { memory[op.in[0].offset(i)] = from[n]; });
    std::vector<float> out(static_cast<std::size_t>(op.out.elements()));
    each_index(op.out.dims,
               [&](const auto& i, std::size_t n) { out[n] = memory.at(op.out.offset(i)); });
    return out;
}

std::vector<float> reduction(const GraphOp& op, Values& values) {
    const bool most = op.mode == CUDNN_REDUCE_TENSOR_MAX;
    std::vector<float> out(static_cast<std::size_t>(op.out.elements()),
                           most ? -std::numeric_limits<float>::infinity() : 0.f);
    const auto& x = values.of(op.in[0]);
    each_index(op.in[0].dims, [&](const auto& i, std::size_t n) {
        auto& to = out[number_of(i, op.in[0].dims, op.out.dims)];
        to = most ? std::max(to, x[n]) : to + x[n];
    });
    return out;
}

std::vector<float> pointwise(const GraphOp& op, Values& values) {
    std::vector<float> out(static_cast<std::size_t>(op.out.elements()));
    std::vector<const float*> from;
    for (const auto& t : op.in) from.push_back(values.of(t).data());
    each_index(op.out.dims, [&](const auto& i, std::size_t n) {
        if (op.mode == CUDNN_POINTWISE_GEN_INDEX) {
            out[n] = static_cast<float>(i[static_cast<std::size_t>(op.axis)]);
            return;
        }
        float v[3] = {};
        for (std::size_t k = 0; k < from.size(); ++k)
            v[k] = from[k][number_of(i, op.out.dims, op.in[k].dims)];
        out[n] = pointwise(op.mode, v[0], v[1], v[2]);
    });
    return out;
}

}  // namespace

std::int64_t GraphTensor::elements() const {
    std::int64_t n = 1;
    for (const auto d : dims) n *= d;
    return n;
}

std::int64_t GraphTensor::offset(const std::vector<std::int64_t>& index) const {
    std::int64_t at = 0;
    for (std::size_t d = 0; d < index.size(); ++d) at += index[d] * strides[d];
    return at;
}

std::size_t GraphTensor::span_bytes() const {
    auto last = dims;
    for (auto& d : last) --d;
    return static_cast<std::size_t>(offset(last) + 1) * size_of(type);
}

std::string unsupported(const OpGraph& graph) {
    for (const auto& op : graph) {
        auto tensors = op.in;
        tensors.push_back(op.out);
        for (const auto& t : tensors)
            if (t.dims.size() != 4 || t.strides.size() != 4)
                return "tensor " + std::to_string(t.uid) + " has not 4 dimensions";
        const bool index = op.kind == GraphOp::Kind::Pointwise &&
                           op.mode == CUDNN_POINTWISE_GEN_INDEX && op.axis < 4;
        if (op.kind == GraphOp::Kind::Pointwise && !index &&
            std::isnan(pointwise(op.mode, 1, 1, 1)))
            return "pointwise mode " + std::to_string(op.mode);
        if (op.kind == GraphOp::Kind::Reduction && op.mode != CUDNN_REDUCE_TENSOR_ADD &&
            op.mode != CUDNN_REDUCE_TENSOR_MAX)
            return "reduction " + std::to_string(op.mode);
    }
    return {};
}

void run(const OpGraph& graph, const GraphArrays& arrays) {
    Values values(arrays);
    for (const auto& op : graph) switch (op.kind) {
            case GraphOp::Kind::Matmul:
                values.set(op.out, matmul(op, values));
                break;
            case GraphOp::Kind::Reduction:
                values.set(op.out, reduction(op, values));
                break;
            case GraphOp::Kind::Reshape:
                values.set(op.out, reshape(op, values));
                break;
            case GraphOp::Kind::Pointwise:
                values.set(op.out, pointwise(op, values));
                break;
        }
}

}  // namespace eyas::fake_cuda
