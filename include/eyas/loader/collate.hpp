#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "eyas/core/memory_resource.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/loader/batch.hpp"
#include "eyas/sample/feature_layout.hpp"

namespace eyas {

/// The memory of one batch: a piece that it is given, or its own, which grows to the largest batch
/// laid out so far and is then reused. Samples are written straight into their place;
/// finish_sample() applies the reference's rules (SpecForge algorithms/eagle3/data.py,
/// data/utils.py). One thread at a time; views into it are valid until the next lay_out().
class BatchArena {
public:
    BatchArena() = default;
    /// Uses this memory only, which must outlive the arena.
    explicit BatchArena(std::span<std::byte> memory) : given_(memory) {}
    /// The same, with the states in `states`, as much memory of `room`, which the host does not
    /// touch.
    BatchArena(std::span<std::byte> memory, std::span<std::byte> states, DeviceRoom& room)
        : given_(memory), states_(states), room_(&room) {}

    /// What a batch needs.
    static std::uint64_t bytes_for(std::int64_t rows, std::int64_t tokens, std::int64_t width,
                                   DType dtype, bool packed = false) {
        std::uint64_t n = 0;
        for (const auto& v : shapes(rows, tokens, width, dtype, packed))
            n += rounded(v.size_bytes());
        return n;
    }

    /// A batch of `rows` (B) of `tokens` (T), none of which is longer after the cut; `packed`: with
    /// documents. Contents are undefined until every sample was written and finished, and every
    /// row. Throws ResourceError where it does not fit the memory that was given.
    void lay_out(std::int64_t rows, std::int64_t tokens, std::int64_t width, DType dtype,
                 bool packed = false) {
        auto views = shapes(rows, tokens, width, dtype, packed);
        std::byte* at = memory(bytes_for(rows, tokens, width, dtype, packed));
        std::byte* const begin = at;
        for (auto& v : views) {
            v.data = room_ && is_state(v) ? states_.data() + (at - begin) : at;
            at += rounded(v.size_bytes());
        }
        std::tie(batch_.input_ids, batch_.attention_mask, batch_.loss_mask, batch_.hidden_state,
                 batch_.target) = std::tie(views[0], views[1], views[2], views[3], views[4]);
        batch_.document.reset();
        if (packed) batch_.document = views[5];
        batch_.sample_ids.clear();
        static std::atomic<std::uint64_t> last = 0;
        batch_.number = ++last;
    }

    /// Where the first `rows` rows of a feature (named as in the file) of the sample belong that
    /// starts at token `first` of batch row b; shape as in the file, [rows] or [1, rows, width].
    /// ContractError for an unknown name.
    MutableTensorView place(std::string_view name, std::int64_t b, std::int64_t rows,
                            std::int64_t first = 0) {
        const auto& whole = view_of(name);
        std::byte* start = const_cast<std::byte*>(whole.data) +
                           static_cast<std::size_t>(b * whole.shape[1] + first) * stride(whole);
        if (whole.shape.rank() == 2) return {start, whole.dtype, Shape{rows}};
        return {start, whole.dtype, Shape{1, rows, whole.shape[2]}};
    }

    /// After a sample was written, in the order of rows: the last of its `rows` rows is not
    /// supervised, attention covers exactly the rows (pad rows inside a file stay valid).
    void finish_sample(std::int64_t b, std::int64_t rows, const std::string& id,
                       std::int64_t first = 0) {
        mark(b, first, first + rows, 1);
        place(feature::loss_mask, b, rows, first)
            .as<std::int64_t>()[static_cast<std::size_t>(rows - 1)] = 0;
        batch_.sample_ids.push_back(id);
    }

    /// Everything in row b to the right of its `used` rows is zero, without attention.
    void finish_row(std::int64_t b, std::int64_t used) {
        const auto tokens = batch_.tokens();
        mark(b, used, tokens, 0);
        for (const auto name : feature::all) {
            const auto pad = place(name, b, tokens - used, used);
            if (used == tokens) continue;
            if (room_ && is_state(pad))
                room_->zero(pad.data, pad.size_bytes());
            else
                std::memset(pad.data, 0, pad.size_bytes());
        }
    }

    /// Fills a place from the host's memory.
    void copy(const std::byte* from, const MutableTensorView& to) {
        if (room_ && is_state(to))
            room_->copy_in(from, to.data, to.size_bytes());
        else
            std::memcpy(to.data, from, to.size_bytes());
    }
    /// Where states lie, if not in the host's memory.
    DeviceRoom* room() const { return room_; }

    const Batch& batch() const { return batch_; }

private:
    // Of ids, attention mask, loss mask, captured states, target, documents; without an address.
    static std::array<TensorView, 6> shapes(std::int64_t rows, std::int64_t tokens,
                                            std::int64_t width, DType dtype, bool packed) {
        const Shape row{rows, tokens};
        return {{{nullptr, DType::I64, row},
                 {nullptr, DType::I64, row},
                 {nullptr, DType::I64, row},
                 {nullptr, dtype, {rows, tokens, 3 * width}},
                 {nullptr, dtype, {rows, tokens, width}},
                 {nullptr, DType::I64, packed ? row : Shape{0}}}};
    }

    static bool is_state(const TensorView& v) { return v.shape.rank() == 3; }

    // Tokens [begin, end) of row b are one document, attended or not.
    void mark(std::int64_t b, std::int64_t begin, std::int64_t end, std::int64_t attended) {
        const auto fill = [&](const TensorView& v, std::int64_t value) {
            auto* row = reinterpret_cast<std::int64_t*>(const_cast<std::byte*>(v.data)) +
                        b * batch_.tokens();
            std::fill(row + begin, row + end, value);
        };
        fill(batch_.attention_mask, attended);
        if (batch_.document) fill(*batch_.document, begin);
    }
    static std::uint64_t rounded(std::uint64_t bytes) {
        return (bytes + Tensor::alignment - 1) / Tensor::alignment * Tensor::alignment;
    }

    std::byte* memory(std::uint64_t bytes) {
        if (!given_.empty()) {
            if (bytes <= given_.size()) return given_.data();
            throw ResourceError(
                "a batch of " + std::to_string(bytes) + " bytes in memory of " +
                    std::to_string(given_.size()),
                "Loader's ring",
                "Raise ring_bytes, or use a smaller batch_size, max_len, pad_to_multiple_of or "
                "prefetch");
        }
        const auto wanted = static_cast<std::int64_t>(bytes);
        if (own_.empty() || own_.elements() < wanted) own_ = Tensor(DType::U8, Shape{wanted});
        return own_.mutable_view().data;
    }

    static std::size_t stride(const TensorView& whole) {  // bytes of one row
        return size_of(whole.dtype) *
               (whole.shape.rank() == 3 ? static_cast<std::size_t>(whole.shape[2]) : 1);
    }

    const TensorView& view_of(std::string_view name) {
        if (name == feature::input_ids) return batch_.input_ids;
        if (name == feature::loss_mask) return batch_.loss_mask;
        if (name == feature::hidden_state) return batch_.target;
        if (name == feature::aux_hidden_state) return batch_.hidden_state;
        throw ContractError("unknown feature '" + std::string(name) + "'", "BatchArena",
                            "Use the names in eyas::feature");
    }

    std::span<std::byte> given_, states_;
    DeviceRoom* room_ = nullptr;
    Tensor own_;  // bytes only; its shape is the capacity
    Batch batch_;
};

/// One sample's features as they lie in a file, mapped or owned by the caller.
struct SampleFeatures {
    std::string id;
    std::span<const NamedTensor> tensors;
};

/// Copies samples into one batch, each cut to `max_len` rows, right-padded with zeros to the
/// longest. Throws DataError, naming the sample, for features that do not form a sample or whose
/// width or dtype differ from the first sample's; ContractError for no samples or max_len < 1.
inline void collate(std::span<const SampleFeatures> samples, std::int64_t max_len,
                    BatchArena& arena) {
    if (samples.empty() || max_len < 1)
        throw ContractError("a batch of " + std::to_string(samples.size()) +
                                " samples of at most " + std::to_string(max_len) + " rows",
                            "collate", "Pass at least one sample and max_len >= 1");
    std::vector<FeatureLayout> layouts;
    std::int64_t longest = 0;
    for (const auto& s : samples) {
        std::vector<FeatureSpec> specs;
        for (const auto& t : s.tensors) specs.push_back(spec_of(t));
        layouts.push_back(feature_layout(specs, "sample " + s.id));
        check_same_width(layouts.back(), layouts.front(), "sample " + s.id);
        longest = std::max(longest, std::min(layouts.back().rows, max_len));
    }
    const auto count = static_cast<std::int64_t>(samples.size());
    arena.lay_out(count, longest, layouts[0].width, layouts[0].dtype);
    for (std::int64_t b = 0; b < count; ++b) {
        const auto& s = samples[static_cast<std::size_t>(b)];
        const auto rows = std::min(layouts[static_cast<std::size_t>(b)].rows, max_len);
        for (const auto& t : s.tensors) {
            if (std::ranges::find(feature::all, t.name) == feature::all.end()) continue;
            const auto to = arena.place(t.name, b, rows);
            std::memcpy(to.data, t.tensor.data, to.size_bytes());
        }
        arena.finish_sample(b, rows, s.id);
        arena.finish_row(b, rows);
    }
}

}  // namespace eyas
