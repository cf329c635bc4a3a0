#pragma once
#include <cmath>
#include <cstdint>
#include <memory>
#include <numbers>
#include <random>
#include <utility>
#include <vector>

#include "eyas/core/convert.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/format/hf_config.hpp"
#include "eyas/loader/batch.hpp"

namespace eyas {

/// A batch of one sample that owns its memory: tokens, and states [T, 3Dt] fp32 rounded to bfloat16
/// as capture rounds them. Every row is supervised. Neither copied nor moved: its batch has views.
class OwnedBatch {
public:
    OwnedBatch(std::vector<std::int64_t> ids, const TensorView& captured, std::int64_t width)
        : ids_(std::move(ids)),
          ones_(ids_.size(), 1),
          captured_(DType::BF16, {1, tokens(), 3 * width}),
          last_(Tensor::zeros(DType::BF16, {1, tokens(), width})) {
        convert_into(captured, captured_.mutable_view());
        batch_.input_ids = row(ids_);
        batch_.attention_mask = batch_.loss_mask = row(ones_);
        batch_.hidden_state = captured_.view();
        batch_.target = last_.view();
    }
    OwnedBatch(const OwnedBatch&) = delete;
    OwnedBatch& operator=(const OwnedBatch&) = delete;

    const Batch& batch() const { return batch_; }

private:
    std::int64_t tokens() const { return static_cast<std::int64_t>(ids_.size()); }
    TensorView row(const std::vector<std::int64_t>& v) const {
        return {reinterpret_cast<const std::byte*>(v.data()), DType::I64, {1, tokens()}};
    }

    std::vector<std::int64_t> ids_, ones_;
    Tensor captured_, last_;  // the last state is the teacher's, which logits do not read: zeros
    Batch batch_;
};

/// Random tokens and N(0, 1) states: no target's, but the same everywhere for one seed.
inline std::unique_ptr<OwnedBatch> random_states(const ModelConfig& draft, std::int64_t tokens,
                                                 std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto uniform = [&] { return (static_cast<double>(random() >> 11) + 0.5) * 0x1.0p-53; };
    std::vector<std::int64_t> ids;
    for (std::int64_t i = 0; i < tokens; ++i)
        ids.push_back(
            static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(draft.vocab_size)));
    Tensor states(DType::F32, {tokens, 3 * draft.target_hidden_size});
    for (auto& v : states.as<float>())
        v = static_cast<float>(std::sqrt(-2 * std::log(uniform())) *
                               std::cos(2 * std::numbers::pi * uniform()));
    return std::make_unique<OwnedBatch>(std::move(ids), states.view(), draft.target_hidden_size);
}

}  // namespace eyas
