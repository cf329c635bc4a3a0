#pragma once
#include <cudnn.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

/// Graphs of cuDNN's operations on the host: what each operation is documented to compute, one
/// after the other, with every intermediate tensor in fp32.
namespace eyas::fake_cuda {

struct GraphTensor {
    std::int64_t uid = 0, alignment = 1;
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    std::vector<std::int64_t> dims, strides;
    bool is_virtual = false, by_value = false;

    std::int64_t elements() const;
    std::int64_t offset(const std::vector<std::int64_t>& index) const;
    /// From the first element to behind the last one.
    std::size_t span_bytes() const;
};

struct GraphOp {
    enum class Kind { Matmul, Pointwise, Reduction, Reshape } kind = Kind::Pointwise;
    int mode = 0;                 // cudnnPointwiseMode_t or cudnnReduceTensorOp_t
    std::int64_t axis = 0;        // of CUDNN_POINTWISE_GEN_INDEX
    std::vector<GraphTensor> in;  // A and B; or X, B and T
    std::optional<GraphTensor> rows, columns, depth;  // Matmul: how many of them count
    GraphTensor out;
};

using OpGraph = std::vector<GraphOp>;
/// By uid. What is by value was read when the call came.
struct GraphArrays {
    std::map<std::int64_t, void*> pointers;
    std::map<std::int64_t, float> values;
};

/// Why the graph is none that can be computed here; empty: it is one.
std::string unsupported(const OpGraph& graph);
void run(const OpGraph& graph, const GraphArrays& arrays);

}  // namespace eyas::fake_cuda
