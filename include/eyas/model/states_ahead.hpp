#pragma once
#include <cstdint>

#include "eyas/core/arena.hpp"
#include "eyas/device/concept.hpp"
#include "eyas/format/hf_config.hpp"
#include "eyas/loader/batch.hpp"
#include "eyas/ops/rows.hpp"

namespace eyas {

/// The states of the batch that comes next, on a device with memory of its own: brought there while
/// the device computes (load_ahead). A batch is known again by its number.
template <class T>
class StatesAhead {
public:
    /// Memory for up to n rows.
    void lay_out(Arena& arena, const ModelConfig& c, std::int64_t n) {
        constexpr const char* part = "states of the batch that comes next";
        arena.give(hidden_, n * 3 * c.target_hidden_size, part);
        arena.give(target_, n * c.target_hidden_size, part);
        number_ = 0;
    }

    /// `next` need not be a batch that fits the model: one that has another size is not taken.
    template <Device D>
    void take(const D& device, const Batch& next, const ModelConfig& c) {
        const auto rows = next.batch_size() * next.tokens();
        number_ = 0;
        has_hidden_ = bring(device, next.hidden_state, rows * 3 * c.target_hidden_size, hidden_);
        has_target_ = bring(device, next.target, rows * c.target_hidden_size, target_);
        number_ = next.number;
    }

    /// b's states, from where they are.
    template <Device D>
    void give(const D& device, const Batch& b, T* hidden, T* target) const {
        const bool here = b.number != 0 && b.number == number_;
        here&& has_hidden_ ? copy(device, hidden_, hidden) : load(device, b.hidden_state, hidden);
        here&& has_target_ ? copy(device, target_, target) : load(device, b.target, target);
    }

private:
    template <Device D>
    static bool bring(const D& device, const TensorView& from, std::int64_t elements,
                      ArenaArray<T>& to) {
        const auto n = static_cast<std::size_t>(elements);
        const bool states = from.dtype == DType::F32 || from.dtype == DType::BF16;
        if (!states || from.elements() != elements || n > to.capacity()) return false;
        to.resize(n);
        return load_ahead(device, from, to.data());
    }
    template <Device D>
    static void copy(const D& device, const ArenaArray<T>& from, T* to) {
        device.copy(from.data(), to, from.size() * sizeof(T));
    }

    ArenaArray<T> hidden_, target_;  // [N, 3Dt], [N, Dt]
    std::uint64_t number_ = 0;       // 0: nobody's
    bool has_hidden_ = false, has_target_ = false;
};

}  // namespace eyas
