#pragma once
#include <optional>
#include <string>
#include <vector>

#include "eyas/core/tensor.hpp"

namespace eyas {

/// One batch as the model takes it, unshifted, right-padded with zeros to T. The views live as long
/// as whoever made the batch says (Loader: until the next call of next()).
struct Batch {
    TensorView input_ids;       // [B, T] int64
    TensorView attention_mask;  // [B, T] int64; 0 on rows that only pad the batch
    TensorView loss_mask;       // [B, T] int64; 1 where the token is supervised
    TensorView hidden_state;    // [B, T, 3*Dt] float32 or bfloat16: captured low, mid, high states
    TensorView target;  // [B, T, Dt] same dtype: the target's last state after its final norm
    std::optional<TensorView> position_ids;  // [B, T] or [3, B, T] int64; 0..T-1 where absent
    std::vector<std::string> sample_ids;     // B of them, for messages

    std::int64_t batch_size() const { return input_ids.shape[0]; }
    std::int64_t tokens() const { return input_ids.shape[1]; }  // T
};

}  // namespace eyas
