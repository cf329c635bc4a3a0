#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "eyas/checkpoint/checkpoint.hpp"
#include "eyas/device/transfer.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/trainer/agreement.hpp"
#include "eyas/trainer/shards.hpp"

namespace eyas::detail {

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

/// Brings what all ranks' optimizers hold together on rank 0, in the host's memory, which is taken
/// at the first call and kept. In a world of one all is there already.
template <Device D, class C>
class StateGather {
public:
    /// All must outlive it. `device`: the optimizer's.
    StateGather(const D& device, const Shards& shards, C& collective)
        : device_(device), shards_(shards), collective_(collective) {}

    /// On rank 0 the whole state, under the names and in the order of AdamW::state(), good until
    /// the next call; elsewhere nothing. All ranks call it. `state`: of this rank's optimizer, over
    /// shards.owned(), where the device has it; in a world of one it is what comes back. Throws
    /// ResourceError, on every rank, where rank 0 has no memory for it.
    std::vector<NamedBuffer> gather(std::vector<NamedBuffer> state) {
        if (!shards_.shared()) return state;
        all_or_none<ResourceError>(collective_,
                                   "rank 0 has no memory for the state of all ranks' optimizers",
                                   "checkpoint", [&] {
                                       if (collective_.is_root() && whole_.empty()) make_room();
                                   });
        if (collective_.is_root()) copy_untrained(state);
        std::vector<float> row;
        for (std::size_t b = 0, first = 0; b < shards_.buckets().size(); ++b) {
            row.resize(shards_.buckets()[b].size());
            for (std::size_t k = 0; k < kinds; ++k) {
                for (auto s = first; s < shards_.slices_end(b); ++s)
                    take(state[kinds * s + k], row.data() + shards_.slices()[s].bucket_offset);
                collective_.gather(std::span(row), shards_.buckets()[b].shards);
                if (collective_.is_root()) spread(row, shards_.buckets()[b], k);
            }
            first = shards_.slices_end(b);
        }
        return whole_;
    }

private:
    static constexpr auto kinds = adamw_state.size();

    void make_room() {
        std::vector<Tensor> tensors;
        std::vector<NamedBuffer> whole;
        std::vector<std::size_t> first;
        for (const auto& p : shards_.parameters()) {
            first.push_back(whole.size());
            for (std::size_t k = 0; k < (p.receives_gradient ? kinds : 1); ++k) {
                tensors.emplace_back(DType::F32, p.value.shape);
                whole.push_back({adamw_state[k] + p.name, tensors.back().mutable_view()});
            }
        }
        tensors_ = std::move(tensors);  // all, or nothing where there was no memory
        whole_ = std::move(whole);
        first_ = std::move(first);
    }

    void copy_untrained(const std::vector<NamedBuffer>& state) {
        auto at = kinds * shards_.slices().size();
        for (std::size_t i = 0; i < first_.size(); ++i)
            if (!shards_.parameters()[i].receives_gradient)
                take(state[at++], whole_[first_[i]].buffer.as<float>().data());
    }

    void take(const NamedBuffer& of, float* to) const {
        const auto from = of.buffer.as<float>();
        download(device_, from.data(), std::span(to, from.size()));
    }

    /// A bucket's row of kind k, to the tensors that it is made of.
    void spread(const std::vector<float>& row, const Bucket& bucket, std::size_t k) {
        for (const auto& piece : bucket.pieces) {
            const auto to = whole_[first_[piece.parameter] + k].buffer.as<float>();
            std::copy_n(row.data() + piece.offset, piece.count, to.data() + piece.begin);
        }
    }

    const D& device_;
    const Shards& shards_;
    C& collective_;
    std::vector<Tensor> tensors_;
    std::vector<NamedBuffer> whole_;  // of tensors_
    std::vector<std::size_t> first_;  // of each parameter, its first in whole_
};

}  // namespace eyas::detail
