#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "eyas/core/tensor.hpp"

namespace eyas {

/// One batch as the model takes it, unshifted, right-padded with zeros to T. A row holds one
/// sample, or several packed one after the other: each is a document that sees nothing of the
/// others. The views live as long as whoever made the batch says (Loader: until the next call of
/// next()).
struct Batch {
    TensorView input_ids;       // [B, T] int64
    TensorView attention_mask;  // [B, T] int64; 0 on rows that only pad the batch
    TensorView loss_mask;       // [B, T] int64; 1 where the token is supervised
    TensorView hidden_state;    // [B, T, 3*Dt] float32 or bfloat16: captured low, mid, high states
    TensorView target;  // [B, T, Dt] same dtype: the target's last state after its final norm
    std::optional<TensorView> position_ids;  // [B, T] or [3, B, T] int64; where absent 0, 1, … from
                                             // the first token of each document
    std::vector<std::string> sample_ids;      // in the order of rows and documents, for messages
    std::optional<TensorView> document = {};  // [B, T] int64: the row of the first token of each
                                              // row's document, ascending; 0 where absent. Padding
                                              // is a document of its own, where there are several
    std::uint64_t number = 0;                 // no other batch of this process has it; 0: not known

    std::int64_t batch_size() const { return input_ids.shape[0]; }
    std::int64_t tokens() const { return input_ids.shape[1]; }  // T
};

}  // namespace eyas
