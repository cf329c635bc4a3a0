#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/tensor.hpp"
#include "eyas/device/transfer.hpp"
#include "eyas/format/hf_config.hpp"
#include "eyas/model/concept.hpp"
#include "eyas/ops/linear.hpp"

namespace eyas {

/// The trainable parameters of an EAGLE3 draft in one block, and their gradients in another, both
/// in state-dict order. q, k, v lie behind one another, as do gate and up, so each group is also
/// one matrix: [(H+2G)E, 2D] and [2F, D].
template <class T>
class Eagle3Parameters {
public:
    /// Linear layers N(0, initializer_range), norms 1. The same seed gives the same bits anywhere.
    /// `packs`: keep the weights of linear layers packed besides, where the device can.
    template <Device D>
    Eagle3Parameters(const D& device, const ModelConfig& c, std::uint64_t seed, bool packs)
        : Eagle3Parameters(c) {
        values_ = Tensor(dtype_of<T>, {size_});
        grads_ = zeros_on(device, DType::F32, {size_});
        bind();
        initialise(c.initializer_range, seed);
        values_ = on_device(device, std::move(values_));
        bind();
        if (packs) packed_ = Tensor(DType::F32, {plan_packed(device)});
    }

    /// Elements that a draft of this config has.
    static std::int64_t count(const ModelConfig& c) { return Eagle3Parameters(c).size_; }
    /// Numbers (fp32) that packed weights take on a device.
    template <Device D>
    static std::int64_t packed_count(const D& device, const ModelConfig& c) {
        return Eagle3Parameters(c).plan_packed(device);
    }

    /// Where a matrix begins in the block, for values and for gradients, and which parameters of
    /// the list it is made of.
    struct Slot {
        std::int64_t offset = 0;
        std::size_t first = 0, count = 0;
        std::int64_t out = 0, in = 0;  // rows of the matrix, and columns
        std::int64_t packed = -1;      // where the packed weight begins, -1: it has none
    };
    Slot qkv, o, gate_up, down, hidden_norm, input_norm, post_norm, fc, fc_norm[3], norm, lm_head;

    const T* value(Slot s) const { return values_.as<T>().data() + s.offset; }
    /// A linear layer's weight; packed as of the last pack().
    LinearWeight<T> weight(Slot s) const {
        const bool packed = !packed_.empty() && s.packed >= 0;
        return {value(s), s.out, s.in, packed ? packed_.as<float>().data() + s.packed : nullptr};
    }
    float* grad(Slot s) { return grads_.as<float>().data() + s.offset; }
    const std::vector<Parameter>& list() const { return parameters_; }
    template <Device D>
    void zero_gradients(const D& device) {
        device.zero(grads_.mutable_view().data, grads_.view().size_bytes());
    }
    std::int64_t size() const { return size_; }  // elements

    /// Packs the weights as they are now; call it before a batch, since values change outside.
    template <Device D>
    void pack(const D& device) {
        if constexpr (PackingDevice<D>)
            for (const auto* s : linear_layers())
                if (!packed_.empty() && s->packed >= 0)
                    device.pack(value(*s), s->out, s->in, packed_.as<float>().data() + s->packed);
    }

private:
    std::array<Slot*, 6> linear_layers() { return {&qkv, &o, &gate_up, &down, &fc, &lm_head}; }

    /// Where each weight's packed form begins; returns the numbers in all.
    template <Device D>
    std::int64_t plan_packed([[maybe_unused]] const D& device) {
        std::int64_t size = 0;
        if constexpr (PackingDevice<D>)
            for (auto* s : linear_layers())
                if (device.packs(s->out, s->in)) {
                    s->packed = size;
                    size += s->out * s->in;
                }
        return size;
    }

    /// Names, shapes and places; no memory.
    explicit Eagle3Parameters(const ModelConfig& c) {
        const auto d = c.hidden_size, q = c.num_attention_heads * c.head_dim,
                   kv = c.num_key_value_heads * c.head_dim;
        const std::string layer = "midlayer.";
        add(layer + "self_attn.q_proj.weight", {q, 2 * d}, qkv);
        add(layer + "self_attn.k_proj.weight", {kv, 2 * d}, qkv);
        add(layer + "self_attn.v_proj.weight", {kv, 2 * d}, qkv);
        add(layer + "self_attn.o_proj.weight", {d, q}, o);
        add(layer + "mlp.gate_proj.weight", {c.intermediate_size, d}, gate_up);
        add(layer + "mlp.up_proj.weight", {c.intermediate_size, d}, gate_up);
        add(layer + "mlp.down_proj.weight", {d, c.intermediate_size}, down);
        add(layer + "hidden_norm.weight", {d}, hidden_norm);
        add(layer + "input_layernorm.weight", {d}, input_norm);
        add(layer + "post_attention_layernorm.weight", {d}, post_norm);
        add("fc.weight", {d, 3 * c.target_hidden_size}, fc);
        for (std::size_t i = 0; c.fc_norm && i < 3; ++i)
            add("fc_norm." + std::to_string(i) + ".weight", {c.target_hidden_size}, fc_norm[i]);
        add("norm.weight", {d}, norm);
        parameters_.back().receives_gradient = c.norm_output;
        add("lm_head.weight", {c.draft_vocab_size, d}, lm_head);
    }

    /// The slot's parameters are added one after the other.
    void add(const std::string& name, const Shape& shape, Slot& slot) {
        if (slot.count++ == 0) {
            slot.offset = size_;
            slot.first = parameters_.size();
        }
        if (shape.rank() == 2) slot.out += shape[0], slot.in = shape[1];
        parameters_.push_back({name, {nullptr, dtype_of<T>, shape}, {nullptr, DType::F32, shape}});
        size_ += shape.elements();
    }

    void bind() {
        std::int64_t at = 0;
        for (auto& p : parameters_) {
            p.value.data = reinterpret_cast<std::byte*>(values_.as<T>().data() + at);
            p.grad.data = reinterpret_cast<std::byte*>(grads_.as<float>().data() + at);
            at += p.value.shape.elements();
        }
    }

    void initialise(double range, std::uint64_t seed) {
        std::mt19937_64 random(seed);
        const auto uniform = [&] {
            return (static_cast<double>(random() >> 11) + 0.5) * 0x1.0p-53;
        };
        for (auto& p : parameters_) {
            const bool is_norm = p.value.shape.rank() == 1;
            for (T& v : p.value.template as<T>()) {  // Box and Muller, the cosine half
                const double radius = is_norm ? 0 : std::sqrt(-2 * std::log(uniform()));
                v = T(is_norm ? 1.f
                              : static_cast<float>(range * radius *
                                                   std::cos(2 * std::numbers::pi * uniform())));
            }
        }
    }

    std::vector<Parameter> parameters_;
    std::int64_t size_ = 0;
    Tensor values_, grads_, packed_;
};

/// Passes on which slots' gradients are final; silent where nobody asked.
class FinalSlots {
public:
    FinalSlots() = default;
    /// `on_final` must outlive it.
    explicit FinalSlots(const GradientIsFinal& on_final)
        : on_final_(on_final ? &on_final : nullptr) {}

    template <class Slot>
    void operator()(const Slot& s) const {
        for (std::size_t i = 0; on_final_ && i < s.count; ++i) (*on_final_)(s.first + i);
    }

private:
    const GradientIsFinal* on_final_ = nullptr;
};

}  // namespace eyas
