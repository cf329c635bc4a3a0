#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "eyas/checkpoint/checkpoint.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/trainer/agreement.hpp"
#include "eyas/trainer/shards.hpp"

namespace eyas::detail {

/// An optimizer's state as a checkpoint has it. Views of the optimizer's own memory in a world of
/// one; else of `tensors`, on rank 0, and nothing elsewhere.
struct WholeState {
    std::vector<Tensor> tensors = {};
    std::vector<NamedBuffer> buffers = {};
    std::vector<std::size_t> first = {};  // of each parameter, its first in `buffers`
};

/// `state`: of the optimizer over shards.owned().
inline std::vector<TensorSlice> state_slices(const Shards& shards,
                                             std::span<const NamedBuffer> state) {
    std::vector<TensorSlice> all;
    const auto slices = shards.slices();
    for (std::size_t i = 0; i < state.size(); ++i) {
        const auto& b = state[i];
        const auto s = i / adamw_state.size();
        if (s < slices.size())
            all.push_back({b.name, shards.parameters()[slices[s].parameter].value.shape,
                           slices[s].begin, b.buffer});
        else
            all.push_back({b.name, b.buffer.shape, 0, b.buffer});
    }
    return all;
}

/// On rank 0, what receives no gradient and room for all else; elsewhere nothing. `state`: of the
/// optimizer over shards.owned().
inline WholeState room_for_state(const Shards& shards, std::span<const NamedBuffer> state) {
    WholeState whole;
    auto rest = state.subspan(adamw_state.size() * shards.slices().size());
    for (const auto& p : shards.parameters()) {
        whole.first.push_back(whole.buffers.size());
        for (std::size_t k = 0; k < (p.receives_gradient ? adamw_state.size() : 1); ++k) {
            whole.tensors.emplace_back(DType::F32, p.value.shape);
            whole.buffers.push_back({adamw_state[k] + p.name, whole.tensors.back().mutable_view()});
        }
        if (p.receives_gradient) continue;
        convert_into(rest.front().buffer, whole.buffers.back().buffer);
        rest = rest.subspan(1);
    }
    return whole;
}

/// What all ranks' optimizers hold, on rank 0, under the names and in the order of AdamW::state().
/// All ranks call it; besides the whole it takes a bucket's memory. `state`: this rank's. Throws
/// ResourceError, on every rank, where rank 0 has no memory for it.
template <class C>
WholeState gather_state(const Shards& shards, std::vector<NamedBuffer> state, C& collective) {
    if (!shards.shared()) return {.buffers = std::move(state)};
    WholeState whole;
    all_or_none<ResourceError>(collective, "rank 0 has no memory for the optimizer's whole state",
                               "checkpoint", [&] {
                                   if (collective.is_root()) whole = room_for_state(shards, state);
                               });
    std::vector<float> row;
    std::size_t first = 0;
    for (std::size_t b = 0; b < shards.buckets().size(); first = shards.slices_end(b++)) {
        const auto& bucket = shards.buckets()[b];
        row.resize(bucket.size());
        for (std::size_t k = 0; k < adamw_state.size(); ++k) {
            for (auto s = first; s < shards.slices_end(b); ++s)
                std::ranges::copy(state[adamw_state.size() * s + k].buffer.template as<float>(),
                                  row.data() + shards.slices()[s].bucket_offset);
            collective.gather(std::span(row), bucket.shards);
            if (!collective.is_root()) continue;
            for (const auto& piece : bucket.pieces)
                std::copy_n(row.data() + piece.offset, piece.count,
                            whole.buffers[whole.first[piece.parameter] + k]
                                    .buffer.template as<float>()
                                    .data() +
                                piece.begin);
        }
    }
    return whole;
}

}  // namespace eyas::detail
