#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>

#include "eyas/core/error.hpp"

namespace eyas {

// Dimension legend, used in every shape comment:
//   B batch   T tokens (padded)   D model width (hidden size)   H query heads   G key/value heads
//   E head width (head_dim)       F feed-forward width          V target vocabulary
//   W draft vocabulary            K TTT steps (ttt_length)

/// The extents of a tensor, outermost first; at most 8 of them, no allocation.
class Shape {
public:
    static constexpr std::size_t max_rank = 8;

    Shape() = default;
    Shape(std::initializer_list<std::int64_t> d)
        : Shape(std::span<const std::int64_t>(d.begin(), d.size())) {}
    explicit Shape(std::span<const std::int64_t> d) : rank_(d.size()) {
        if (d.size() > max_rank)
            throw ContractError("a tensor of rank " + std::to_string(d.size()), "Shape",
                                "At most 8 dimensions are supported");
        std::ranges::copy(d, dims_.begin());
    }

    std::size_t rank() const { return rank_; }
    std::int64_t operator[](std::size_t i) const { return dims_[i]; }
    std::span<const std::int64_t> dims() const { return {dims_.data(), rank_}; }

    /// Product of the extents; throws DataError for a negative extent or overflow, so that a
    /// hostile header cannot make a small size out of a large shape.
    std::int64_t elements() const {
        std::int64_t n = 1;
        for (auto d : dims()) {
            if (d < 0 || (d > 0 && n > std::numeric_limits<std::int64_t>::max() / 16 / d))
                throw DataError("impossible tensor shape " + text(), "Shape",
                                "The file is corrupt; write it again");
            n *= d;
        }
        return n;
    }

    /// "[2, 17, 64]"
    std::string text() const {
        std::string s = "[";
        for (std::size_t i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string(dims_[i]);
        return s + "]";
    }

    friend bool operator==(const Shape& a, const Shape& b) {
        return std::ranges::equal(a.dims(), b.dims());
    }

private:
    std::array<std::int64_t, max_rank> dims_{};
    std::size_t rank_ = 0;
};

}  // namespace eyas
