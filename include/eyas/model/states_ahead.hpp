#pragma once
#include <cstddef>
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
        arena.give(hidden_.values, n * 3 * c.target_hidden_size, part);
        arena.give(target_.values, n * c.target_hidden_size, part);
        number_ = 0;
    }

    /// `next` need not be a batch that fits the model: one that has another size is not taken.
    template <Device D>
    void take(const D& device, const Batch& next, const ModelConfig& c) {
        const auto rows = next.batch_size() * next.tokens();
        number_ = 0;  // until all went well
        hidden_.bring(device, next.hidden_state, rows * 3 * c.target_hidden_size);
        target_.bring(device, next.target, rows * c.target_hidden_size);
        number_ = next.number;
    }

    /// b's states, from where they are.
    template <Device D>
    void give(const D& device, const Batch& b, T* hidden, T* target) const {
        const bool here = b.number != 0 && b.number == number_;
        hidden_.give(device, b.hidden_state, hidden, here);
        target_.give(device, b.target, target, here);
    }

private:
    struct States {
        template <Device D>
        void bring(const D& device, const TensorView& from, std::int64_t elements) {
            const auto n = static_cast<std::size_t>(elements);
            const bool states = from.dtype == DType::F32 || from.dtype == DType::BF16;
            of = nullptr;
            if (!states || from.elements() != elements || n > values.capacity()) return;
            values.resize(n);
            if (load_ahead(device, from, values.data())) of = from.data;
        }
        /// `here`: they may be. A copy of the batch that views other states has the number, too.
        template <Device D>
        void give(const D& device, const TensorView& from, T* to, bool here) const {
            if (here && of == from.data &&
                values.size() == static_cast<std::size_t>(from.elements()))
                device.copy(values.data(), to, values.size() * sizeof(T));
            else
                load(device, from, to);
        }

        ArenaArray<T> values;
        const std::byte* of = nullptr;  // what they were brought from; null: nothing
    };

    States hidden_, target_;    // [N, 3Dt], [N, Dt]
    std::uint64_t number_ = 0;  // 0: nobody's
};

}  // namespace eyas
