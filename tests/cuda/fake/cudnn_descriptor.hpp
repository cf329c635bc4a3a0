#pragma once
#include <cudnn.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cudnn_graph.hpp"

namespace eyas::fake_cuda {

struct Descriptor;
using DescriptorPtr = std::shared_ptr<Descriptor>;

struct Attribute {
    cudnnBackendAttributeType_t type{};
    std::int64_t count = 0;
    std::vector<std::byte> bytes;
    std::vector<DescriptorPtr> parts;  // of CUDNN_TYPE_BACKEND_DESCRIPTOR
};

/// What cuDNN's backend calls a descriptor: attributes by name, good for use once finalized.
struct Descriptor {
    cudnnBackendDescriptorType_t type{};
    bool finalized = false;
    std::map<int, Attribute> attributes;

    template <class V>
    std::vector<V> all(int name) const {
        const auto it = attributes.find(name);
        if (it == attributes.end()) return {};
        std::vector<V> v(it->second.bytes.size() / sizeof(V));
        std::memcpy(v.data(), it->second.bytes.data(), v.size() * sizeof(V));
        return v;
    }
    template <class V>
    V one(int name, V otherwise = {}) const {
        const auto it = attributes.find(name);
        if (it != attributes.end() && it->second.bytes.size() >= sizeof(V))
            std::memcpy(&otherwise, it->second.bytes.data(), sizeof(V));
        return otherwise;
    }
    DescriptorPtr part(int name) const {
        const auto it = attributes.find(name);
        return it == attributes.end() || it->second.parts.empty() ? nullptr : it->second.parts[0];
    }
};

inline GraphTensor tensor(const Descriptor& d) {
    GraphTensor t;
    t.uid = d.one<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
    t.alignment = d.one<std::int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 1);
    t.type = d.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE);
    t.dims = d.all<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS);
    t.strides = d.all<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES);
    t.is_virtual = d.one<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL);
    t.by_value = d.one<bool>(CUDNN_ATTR_TENSOR_IS_BY_VALUE);
    return t;
}

inline std::optional<GraphTensor> tensor_of(const Descriptor& op, int name) {
    const auto part = op.part(name);
    return part ? std::optional(tensor(*part)) : std::nullopt;
}

/// Empty where it is an operation that is not known here.
inline std::optional<GraphOp> operation(const Descriptor& d) {
    GraphOp op;
    std::vector<int> in;
    int out = 0;
    switch (d.type) {
        case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
            op.kind = GraphOp::Kind::Matmul;
            in = {CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_ATTR_OPERATION_MATMUL_BDESC};
            out = CUDNN_ATTR_OPERATION_MATMUL_CDESC;
            op.rows = tensor_of(d, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC);
            op.columns = tensor_of(d, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC);
            op.depth = tensor_of(d, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC);
            break;
        case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: {
            const auto how = d.part(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
            op.mode = how ? how->one<int>(CUDNN_ATTR_POINTWISE_MODE) : -1;
            op.axis = how ? how->one<std::int64_t>(CUDNN_ATTR_POINTWISE_AXIS) : 0;
            in = {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
                  CUDNN_ATTR_OPERATION_POINTWISE_TDESC};
            out = CUDNN_ATTR_OPERATION_POINTWISE_YDESC;
            break;
        }
        case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR: {
            op.kind = GraphOp::Kind::Reduction;
            const auto how = d.part(CUDNN_ATTR_OPERATION_REDUCTION_DESC);
            op.mode = how ? how->one<int>(CUDNN_ATTR_REDUCTION_OPERATOR) : -1;
            in = {CUDNN_ATTR_OPERATION_REDUCTION_XDESC};
            out = CUDNN_ATTR_OPERATION_REDUCTION_YDESC;
            break;
        }
        case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
            op.kind = GraphOp::Kind::Reshape;
            in = {CUDNN_ATTR_OPERATION_RESHAPE_XDESC};
            out = CUDNN_ATTR_OPERATION_RESHAPE_YDESC;
            break;
        default:
            return {};
    }
    for (const int name : in)
        if (auto t = tensor_of(d, name)) op.in.push_back(*std::move(t));
    const auto to = tensor_of(d, out);
    if (op.in.empty() || !to) return {};
    op.out = *to;
    return op;
}

/// Of an operation graph. Empty where it cannot be computed here; `why` says why.
inline OpGraph graph_of(const Descriptor& d, std::string& why) {
    OpGraph graph;
    const auto it = d.attributes.find(CUDNN_ATTR_OPERATIONGRAPH_OPS);
    if (it != d.attributes.end())
        for (const auto& part : it->second.parts) {
            auto op = operation(*part);
            if (!op) {
                why = "operation of type " + std::to_string(part->type);
                return {};
            }
            graph.push_back(*std::move(op));
        }
    why = unsupported(graph);
    return why.empty() ? graph : OpGraph();
}

}  // namespace eyas::fake_cuda
