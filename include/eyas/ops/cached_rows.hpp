#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace eyas {

/// Keys that lie together in a cache: a block of one key/value head holds keys [E][16], a column a
/// key, then values [16][E].
inline constexpr std::int64_t key_block = 16;

/// New rows of one sequence against keys and values that lie in blocks, their own among them.
/// Row r attends to the first seen[r] slots, then to those that extra_of(r) lists, in that order,
/// under one fp32 softmax. The arithmetic of a row depends on the keys it sees and on their order
/// alone: not on which slots they lie in, nor on the rows beside it. So a row of a draft tree has
/// the bits that the same tokens have when they are decoded one by one.
struct CachedRows {
    const float* q = nullptr;  // [R, H*E], rows `q_stride` apart
    float* out = nullptr;      // [R, H*E], rows `out_stride` apart
    std::int64_t q_stride = 0, out_stride = 0, rows = 0;
    std::span<const float* const> blocks;  // of slots 16 i ..: [G] blocks of one layer, G kv heads
    std::span<const std::int64_t> seen;    // [R]
    std::span<const std::int64_t> extra;   // slots, all rows' behind one another
    std::span<const std::int64_t> extra_begin;  // [R + 1] into `extra`; empty: no row has any

    std::span<const std::int64_t> extra_of(std::int64_t r) const {
        if (extra_begin.empty()) return {};
        const auto i = static_cast<std::size_t>(r);
        return extra.subspan(static_cast<std::size_t>(extra_begin[i]),
                             static_cast<std::size_t>(extra_begin[i + 1] - extra_begin[i]));
    }
};

/// Heads of a layer: H query heads of width E read G key/value heads.
struct HeadShape {
    std::int64_t heads = 0, kv_heads = 0, head_dim = 0;

    std::int64_t group() const { return heads / kv_heads; }
    std::int64_t block_size() const { return 2 * key_block * head_dim; }  // numbers, one kv head
    std::int64_t q_width() const { return heads * head_dim; }
    std::int64_t kv_width() const { return kv_heads * head_dim; }
    std::int64_t qkv_width() const { return q_width() + 2 * kv_width(); }
};

}  // namespace eyas
