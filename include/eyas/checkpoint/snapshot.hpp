#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "eyas/checkpoint/checkpoint.hpp"
#include "eyas/core/stream_copy.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/device/cpu.hpp"

namespace eyas {

/// A copy of all tensors of a checkpoint in one piece of memory, each once, so that it can be
/// written while the model and optimizer go on. The memory is taken once and used again. One thread
/// takes it; what it gave may be read by any until the next take().
class CheckpointSnapshot {
public:
    /// Memory for copies of such content, every page of it touched, so that the first copy takes no
    /// longer than the others. Throws ResourceError when there is none.
    void reserve(const CheckpointContent& content) { make_room(bytes_of(content)); }

    /// Copies all values, on all cores; an earlier copy is gone. Views of it, with the references
    /// of `content` to vocabulary map and config; valid until the next call and no longer than
    /// this. Throws ResourceError where reserve() was not called and there is no memory.
    CheckpointContent take(const CheckpointContent& content) {
        reserve(content);
        parameters_.assign(content.parameters.begin(), content.parameters.end());
        CheckpointContent copy{parameters_, content.vocab_map, content.config, content.optimizer};
        std::vector<Part> parts;
        std::size_t used = 0;
        const auto relocate = [&](MutableTensorView& v) {
            parts.push_back({used, v.bytes()});
            v.data = memory_.mutable_view().data + used;
            used += room_for(v);
        };
        for (auto& p : parameters_) {
            relocate(p.value);
            p.grad = {};
        }
        for (auto& b : copy.optimizer) {
            const auto twin = content.parameter_at(b.buffer);
            if (twin < parameters_.size())
                b.buffer.data = parameters_[twin].value.data;
            else
                relocate(b.buffer);
        }
        copy_all(parts, used);
        return copy;
    }

    /// Of the memory, 0 before there is any.
    std::uint64_t bytes() const { return memory_.empty() ? 0 : memory_.view().size_bytes(); }

private:
    /// Bytes that go to the place `at` of the memory.
    struct Part {
        std::size_t at;
        std::span<const std::byte> from;
    };

    // What one thread copies at a time; less is copied by one thread.
    static constexpr std::size_t stretch = std::size_t{1} << 20;

    static std::size_t room_for(const TensorView& v) {
        return (v.size_bytes() + Tensor::alignment - 1) / Tensor::alignment * Tensor::alignment;
    }
    static std::size_t bytes_of(const CheckpointContent& content) {
        std::size_t sum = 0;
        for (const auto& p : content.parameters) sum += room_for(p.value);
        for (const auto& b : content.optimizer)
            if (content.parameter_at(b.buffer) == content.parameters.size())
                sum += room_for(b.buffer);
        return sum;
    }

    void make_room(std::size_t bytes) {
        if (bytes <= memory_.view().size_bytes() && !memory_.empty()) return;
        memory_ = Tensor();  // before the next is taken
        memory_ = Tensor::zeros(DType::U8, {static_cast<std::int64_t>(bytes)});
    }

    /// `parts` lie one after the other in the memory, `used` bytes in all.
    void copy_all(const std::vector<Part>& parts, std::size_t used) {
        auto* const memory = memory_.mutable_view().data;
        const auto copy_stretch = [&](std::int64_t i) {
            const auto begin = static_cast<std::size_t>(i) * stretch, end = begin + stretch;
            auto part = std::ranges::upper_bound(parts, begin, {}, &Part::at);
            for (--part; part != parts.end() && part->at < end; ++part) {
                const auto skip = std::max(begin, part->at) - part->at;
                if (skip >= part->from.size()) continue;
                const auto size = std::min(part->from.size() - skip, end - part->at - skip);
                const auto unseen = [](std::span<const std::byte>) {};
                detail::copy_and_look({memory + part->at + skip, size},
                                      part->from.subspan(skip, size), true, unseen);
            }
        };
        Cpu().for_each_row(static_cast<std::int64_t>((used + stretch - 1) / stretch), copy_stretch);
    }

    Tensor memory_;
    std::vector<Parameter> parameters_;  // with values in memory_
};

}  // namespace eyas
