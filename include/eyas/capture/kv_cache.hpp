#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/ops/cached_attention.hpp"

namespace eyas {

/// Keys and values of many sequences in pages of 16 tokens (paged attention: arXiv 2309.06180), so
/// that sequences grow and end without moving one another. A page holds all layers:
/// [layers][G][keys [E][16], values [16][E]] fp32. Pages are allocated when they are first needed
/// and used again afterwards. One thread changes it; store() of different slots may run on many.
class KvCache {
public:
    /// The pages of one sequence. Move-only; give it back by release().
    class Sequence {
    public:
        Sequence() = default;
        Sequence(Sequence&& other) noexcept { *this = std::move(other); }
        Sequence& operator=(Sequence&& other) noexcept {
            std::swap(pages_, other.pages_);
            std::swap(length_, other.length_);
            return *this;
        }
        std::int64_t length() const { return length_; }  // tokens that are part of the sequence

    private:
        friend class KvCache;
        std::vector<std::size_t> pages_;
        std::int64_t length_ = 0;
    };

    /// Room for up to `max_tokens`, rounded up to pages.
    KvCache(std::int64_t layers, HeadShape shape, std::int64_t max_tokens)
        : layers_(layers),
          shape_(shape),
          max_pages_(static_cast<std::size_t>((max_tokens + key_block - 1) / key_block)) {}

    std::int64_t page_bytes() const { return layers_ * layer_size() * 4; }
    std::int64_t pages_in_use() const { return std::ssize(pages_) - std::ssize(free_); }
    std::int64_t pages_left() const {
        return static_cast<std::int64_t>(max_pages_ - pages_.size() + free_.size());
    }
    static std::int64_t pages_of(std::int64_t tokens) {
        return (tokens + key_block - 1) / key_block;
    }

    /// Makes slots 0 .. tokens-1 of the sequence usable. False, and nothing changed, where the
    /// cache has not that many pages left.
    bool reserve(Sequence& s, std::int64_t tokens) {
        const auto more = pages_of(tokens) - std::ssize(s.pages_);
        if (more > pages_left()) return false;
        for (std::int64_t i = 0; i < more; ++i) s.pages_.push_back(take());
        return true;
    }
    void release(Sequence& s) {
        free_.insert(free_.end(), s.pages_.begin(), s.pages_.end());
        s.pages_.clear();
        s.length_ = 0;
    }

    /// Key and value of a slot, [G*E] each.
    void store(const Sequence& s, std::int64_t layer, std::int64_t slot, const float* key,
               const float* value) {
        const auto e = shape_.head_dim, column = slot % key_block;
        float* block = this->block(s, layer, slot / key_block);
        for (std::int64_t g = 0; g < shape_.kv_heads; ++g, block += shape_.block_size()) {
            for (std::int64_t i = 0; i < e; ++i) block[i * key_block + column] = key[g * e + i];
            std::copy_n(value + g * e, e, block + (key_block + column) * e);
        }
    }

    /// Appends the blocks of the first `slots` slots to a list for CachedRows.
    void blocks(const Sequence& s, std::int64_t layer, std::int64_t slots,
                std::vector<const float*>& to) const {
        for (std::int64_t i = 0; i < pages_of(slots); ++i)
            to.push_back(const_cast<KvCache*>(this)->block(s, layer, i));
    }

    /// The stored slots length .. length+n-1 become part of the sequence.
    void append(Sequence& s, std::int64_t n) const { s.length_ += n; }
    /// Of slots that were stored behind the sequence, these become part of it, in this order; they
    /// must ascend. Others are forgotten. The accepted path of a draft tree.
    void keep(Sequence& s, std::span<const std::int64_t> slots) {
        for (auto from : slots) {
            const auto to = s.length_++;
            for (std::int64_t l = 0; from != to && l < layers_; ++l) move(s, l, from, to);
        }
    }
    /// Forgets all tokens from `length` on.
    void truncate(Sequence& s, std::int64_t length) const {
        s.length_ = std::min(s.length_, length);
    }

private:
    std::int64_t layer_size() const { return shape_.kv_heads * shape_.block_size(); }

    std::size_t take() {
        if (free_.empty()) {
            const auto size = static_cast<std::size_t>(layers_ * layer_size());
            pages_.push_back(std::make_unique<float[]>(size));
            return pages_.size() - 1;
        }
        const auto page = free_.back();
        free_.pop_back();
        return page;
    }

    float* block(const Sequence& s, std::int64_t layer, std::int64_t index) {
        return pages_[s.pages_[static_cast<std::size_t>(index)]].get() + layer * layer_size();
    }

    void move(const Sequence& s, std::int64_t layer, std::int64_t from, std::int64_t to) {
        const auto e = shape_.head_dim;
        const float* a = block(s, layer, from / key_block);
        float* b = block(s, layer, to / key_block);
        const auto i = from % key_block, j = to % key_block;
        for (std::int64_t g = 0; g < shape_.kv_heads;
             ++g, a += shape_.block_size(), b += shape_.block_size()) {
            for (std::int64_t d = 0; d < e; ++d) b[d * key_block + j] = a[d * key_block + i];
            std::copy_n(a + (key_block + i) * e, e, b + (key_block + j) * e);
        }
    }

    std::int64_t layers_;
    HeadShape shape_;
    std::size_t max_pages_;
    std::vector<std::unique_ptr<float[]>> pages_;
    std::vector<std::size_t> free_;
};

}  // namespace eyas
