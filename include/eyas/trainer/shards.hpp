#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "eyas/model/concept.hpp"

namespace eyas::detail {

/// Elements [begin, begin + count) of a parameter, which lie at `offset` in their bucket.
struct BucketPiece {
    std::size_t parameter = 0, begin = 0, count = 0, offset = 0;
};

/// Neighbours in memory among the parameters that receive a gradient, or a part of one: reduced in
/// one call, gathered in one.
struct Bucket {
    std::vector<BucketPiece> pieces = {};
    std::span<float> gradients = {};       // [n]
    MutableTensorView values = {};         // [n], in the model's precision
    std::vector<std::size_t> shards = {};  // elements that each rank owns, in the order of ranks

    std::size_t size() const { return gradients.size(); }

    /// Whether elements of p from `begin` on lie right behind this bucket's.
    bool goes_on_with(const Parameter& p, std::size_t begin) const {
        return values.dtype == p.value.dtype &&
               values.data + values.size_bytes() == p.value.data + begin * size_of(p.value.dtype) &&
               gradients.data() + gradients.size() == p.grad.as<float>().data() + begin;
    }
    void take(std::size_t parameter, const Parameter& p, std::size_t begin, std::size_t count) {
        if (pieces.empty()) {
            gradients = p.grad.as<float>().subspan(begin, 0);
            values = {p.value.data + begin * size_of(p.value.dtype), p.value.dtype, {}};
        }
        pieces.push_back({parameter, begin, count, size()});
        gradients = {gradients.data(), size() + count};
        values.shape = Shape{static_cast<std::int64_t>(size())};
    }
};

/// Which rank owns what: the parameters that receive a gradient, one after the other, are cut into
/// buckets, and of each bucket every rank owns a part, in the order of ranks. A rank that owns
/// elements keeps their optimizer state and updates them. What receives no gradient is rank 0's. In
/// a world of one there is no bucket, and all is as it was.
class Shards {
public:
    /// A part of a parameter that this rank owns; `bucket_offset` where it lies in its bucket.
    struct Slice {
        std::size_t parameter = 0, begin = 0, count = 0, bucket_offset = 0;
    };

    Shards(std::span<const Parameter> parameters, int rank, int world, std::int64_t bucket_bytes)
        : parameters_(parameters.begin(), parameters.end()) {
        if (world == 1) {
            owned_ = parameters_;
            return;
        }
        fill_buckets(rounded(static_cast<std::size_t>(bucket_bytes) / sizeof(float)));
        for (auto& b : buckets_) {
            share(b, static_cast<std::size_t>(world));
            own(b, static_cast<std::size_t>(rank));
            slices_end_.push_back(slices_.size());
        }
        for (std::size_t i = 0; rank == 0 && i < parameters_.size(); ++i)
            if (!parameters_[i].receives_gradient) owned_.push_back(parameters_[i]);
    }

    /// False in a world of one.
    bool shared() const { return !buckets_.empty(); }
    /// The model's.
    std::span<const Parameter> parameters() const { return parameters_; }
    std::span<const Bucket> buckets() const { return buckets_; }
    /// What the optimizer of this rank updates: a parameter for each slice, bucket by bucket; then
    /// what receives no gradient, on rank 0.
    std::span<const Parameter> owned() const { return owned_; }
    std::span<const Slice> slices() const { return slices_; }
    /// How many of slices() lie in buckets up to this one.
    std::size_t slices_end(std::size_t bucket) const { return slices_end_[bucket]; }

private:
    // Elements: shards and cuts lie at multiples of 64 bytes from their bucket's begin.
    static constexpr std::size_t granule = 16;
    static std::size_t rounded(std::size_t n) {
        return std::max(granule, (n + granule - 1) / granule * granule);
    }

    void fill_buckets(std::size_t most) {
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            const auto& p = parameters_[i];
            if (!p.receives_gradient) continue;
            const auto n = static_cast<std::size_t>(p.value.shape.elements());
            for (std::size_t begin = 0; begin < n;) {
                if (buckets_.empty() || buckets_.back().size() == most ||
                    !buckets_.back().goes_on_with(p, begin))
                    buckets_.emplace_back();
                auto& b = buckets_.back();
                const auto count = std::min(n - begin, most - b.size());
                b.take(i, p, begin, count);
                begin += count;
            }
        }
    }

    static void share(Bucket& b, std::size_t world) {
        const auto each = rounded((b.size() + world - 1) / world);
        for (std::size_t p = 0, left = b.size(); p < world; ++p) {
            b.shards.push_back(std::min(each, left));
            left -= b.shards.back();
        }
    }

    void own(const Bucket& b, std::size_t rank) {
        std::size_t from = 0;
        for (std::size_t p = 0; p < rank; ++p) from += b.shards[p];
        const auto to = from + b.shards[rank];
        for (const auto& piece : b.pieces) {
            const auto begin = std::max(from, piece.offset),
                       end = std::min(to, piece.offset + piece.count);
            if (begin >= end) continue;
            const Slice s{piece.parameter, piece.begin + begin - piece.offset, end - begin, begin};
            slices_.push_back(s);
            owned_.push_back(part_of(parameters_[s.parameter], s));
        }
    }

    static Parameter part_of(const Parameter& p, const Slice& s) {
        const Shape shape{static_cast<std::int64_t>(s.count)};
        auto part = p;
        part.value = {p.value.data + s.begin * size_of(p.value.dtype), p.value.dtype, shape};
        part.grad = {p.grad.data + s.begin * sizeof(float), DType::F32, shape};
        return part;
    }

    std::vector<Parameter> parameters_, owned_;
    std::vector<Bucket> buckets_;
    std::vector<Slice> slices_;
    std::vector<std::size_t> slices_end_;
};

}  // namespace eyas::detail
