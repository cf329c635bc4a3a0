#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <utility>
#include <vector>

#include "eyas/core/arena.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/device/concept.hpp"
#include "eyas/device/transfer.hpp"
#include "eyas/ops/distillation_rows.hpp"
#include "eyas/ops/linear.hpp"
#include "eyas/ops/rows.hpp"
#include "eyas/sample/vocab_map.hpp"

namespace eyas {

/// The frozen target head with its rows sorted: those with a draft id first, in draft order, then
/// the rest. So the draft vocabulary's logits are one matmul, and the rest is visited in tiles. In
/// fp32 a tile that the device can pack is held packed alone.
template <class T>
class TeacherHead {
public:
    static constexpr std::int64_t vocabulary_tile = 4096;

    /// lm_head [V, Dt]. The map was checked to fit. `packs`: hold packed what can be.
    template <Device Dev>
    TeacherHead(const Dev& device, const TensorView& lm_head, const VocabMap& map, bool packs)
        : width_(lm_head.shape[1]), draft_vocab_(map.draft_vocab_size()) {
        Tensor rows(dtype_of<T>, lm_head.shape), order(DType::I64, {map.vocab_size()});
        const auto ids = order.as<std::int64_t>();
        std::size_t next = 0;
        for (std::int64_t w = 0; w < draft_vocab_; ++w) ids[next++] = map.target_id(w);
        for (std::int64_t v = 0; v < map.vocab_size(); ++v)
            if (!map.t2d[static_cast<std::size_t>(v)]) ids[next++] = v;
        const auto from_row = static_cast<std::size_t>(width_) * size_of(lm_head.dtype);
        const auto to_row = static_cast<std::size_t>(width_) * sizeof(T);
        for (std::size_t r = 0; r < ids.size(); ++r)
            convert_into({lm_head.data + static_cast<std::size_t>(ids[r]) * from_row,
                          lm_head.dtype,
                          {width_}},
                         {rows.mutable_view().data + r * to_row, dtype_of<T>, {width_}});
        rows_ = on_device(device, std::move(rows));
        ids_ = on_device(device, std::move(order));
        cut();
        if (packs) pack(device);
    }

    std::int64_t width() const { return width_; }                   // Dt
    std::int64_t draft_vocab_size() const { return draft_vocab_; }  // W

    /// Of the scratch for n rows, where `rest` target tokens have no draft id.
    static std::int64_t tile_elements(std::int64_t n, std::int64_t rest) {
        return n * std::min(vocabulary_tile, rest);
    }

    /// Draft-vocabulary logits z [N, W] (fp32 numbers in T's precision) of states [N, Dt], and per
    /// row the arg-max and log-sum-exp over the whole vocabulary. `tile` is scratch for
    /// tile_elements(n, V - W).
    template <Device Dev>
    void evaluate(const Dev& device, const T* states, std::int64_t n, float* z,
                  ArenaArray<float>& tile, ArenaArray<TeacherRow>& rows) const {
        rows.resize(static_cast<std::size_t>(n));
        start_rows(device, rows.data(), n);
        tile.resize(static_cast<std::size_t>(tile_elements(n, ids_.elements() - draft_vocab_)));
        for (const auto& t : tiles_) {
            float* to = t.begin == 0 ? z : tile.data();
            linear_unrounded(device, states, weight(t), to, n);
            if constexpr (!std::same_as<T, float>) round_in_place<T>(device, to, n * t.count);
            visit_rows(device, rows.data(), to, n, ids(t.begin), t.count);
        }
    }

private:
    /// Rows that are multiplied at once: the draft's tokens, then tiles of the rest.
    struct Tile {
        std::int64_t begin, count;
        bool packed = false;
    };

    void cut() {
        tiles_.push_back({0, draft_vocab_});
        for (auto begin = draft_vocab_; begin < ids_.elements(); begin += vocabulary_tile)
            tiles_.push_back({begin, std::min(vocabulary_tile, ids_.elements() - begin)});
    }

    /// Tile by tile in its own place.
    template <Device Dev>
    void pack([[maybe_unused]] const Dev& device) {
        if constexpr (PackingDevice<Dev> && std::same_as<T, float>) {
            std::vector<float> plain;
            for (auto& t : tiles_) {
                t.packed = device.packs(t.count, width_);
                if (!t.packed) continue;
                float* tile = rows_.template as<float>().data() + t.begin * width_;
                plain.assign(tile, tile + t.count * width_);
                device.pack(plain.data(), t.count, width_, tile);
            }
        }
    }

    LinearWeight<T> weight(const Tile& t) const {
        LinearWeight<T> w{rows_.template as<T>().data() + t.begin * width_, t.count, width_};
        if constexpr (std::same_as<T, float>)
            if (t.packed) w.packed = w.plain;
        return w;
    }
    const std::int64_t* ids(std::int64_t begin) const {
        return ids_.template as<std::int64_t>().data() + begin;
    }

    std::int64_t width_, draft_vocab_;
    Tensor rows_;  // [V, Dt]
    Tensor ids_;   // [V] target id of each row
    std::vector<Tile> tiles_;
};

}  // namespace eyas
