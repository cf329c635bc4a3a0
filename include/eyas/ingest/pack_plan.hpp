#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eyas/ingest/shard_writer.hpp"
#include "eyas/sample/feature_layout.hpp"
#include "eyas/sample/sample_ref.hpp"

namespace eyas {

/// In what type packed states are stored.
enum class PackedStates { Keep, Fp8E4M3 };

struct PackOptions {
    std::uint64_t shard_bytes = std::uint64_t{1} << 30;  // a shard is at most so large, or a sample
    PackedStates states = PackedStates::Keep;
    bool keep_padding = false;    // false: trailing pad rows of samples are left out
    bool durable = true;          // sync each shard before it appears
    std::string auth_token = {};  // the directory's, where it has none yet
};

namespace detail {

/// Columns that share a scale: all of hidden_state, each captured layer of aux_hidden_state, whose
/// norms differ by orders of magnitude.
inline std::uint32_t scale_groups(std::string_view name) {
    return name == feature::aux_hidden_state ? 3 : 1;
}

/// [T], [T, D] or [1, T, D] with other rows.
inline Shape with_rows(const Shape& shape, std::int64_t rows) {
    std::array<std::int64_t, Shape::max_rank> dims{};
    std::ranges::copy(shape.dims(), dims.begin());
    dims[shape.rank() == 3 ? 1 : 0] = rows;
    return Shape(std::span(dims.data(), shape.rank()));
}

/// How a sample of `rows` rows lies in a shard; ranges are still empty.
inline PackedSample packed_layout(const std::string& id, std::span<const FeatureSpec> specs,
                                  std::int64_t rows, PackedStates states) {
    PackedSample s{id, {}};
    for (const auto name : feature::all) {
        const auto& spec = named_spec(specs, name, "sample '" + id + "'");
        PackedFeature f;
        f.name = name;
        f.dtype = spec.dtype;
        f.shape = with_rows(spec.shape, rows);
        if (states == PackedStates::Fp8E4M3 && f.dtype != DType::I64) {
            f.encoding = Encoding::ScaledE4M3;
            f.groups = scale_groups(name);
        }
        s.features.push_back(std::move(f));
    }
    return s;
}

/// Rows without those at the end that are padding: token 0 and mask 0. The row after the last
/// supervised one is its target and stays.
inline std::int64_t rows_without_padding(std::span<const std::int64_t> ids,
                                         std::span<const std::int64_t> mask) {
    const auto all = ids.size();
    std::size_t rows = all, supervised = 0;
    while (rows > 0 && ids[rows - 1] == 0 && mask[rows - 1] == 0) --rows;
    for (std::size_t i = 0; i < all; ++i)
        if (mask[i] != 0) supervised = i + 2;
    return static_cast<std::int64_t>(std::clamp<std::size_t>(std::max(rows, supervised), 1, all));
}

/// Which refs go into a shard, decided before any is read.
struct ShardPlan {
    std::size_t first = 0, last = 0;  // of the manifest; `last` is not in it
    ShardRoom room = {};
    std::uint64_t number = 0;  // of what is packed and how: PackIndex::plan()
};

template <class C>
std::uint64_t plan_number(std::span<const SampleRef> refs, const PackOptions& o, const C& content) {
    std::string text = std::to_string(static_cast<int>(o.states)) + (o.keep_padding ? "p" : "");
    for (const auto& r : refs)
        text += "\n" + r.sample_id + "\t" + r.feature_store_uri + "\t" +
                std::to_string(r.generation()) + "\t" + hex64(content(r));
    return xxh3(std::as_bytes(std::span(text.data(), text.size())));
}

/// `specs(ref)` gives a ref's feature specs, `content(ref)` a number that changes with its bytes
/// where URI and generation do not. Throws DataError for a ref that is no EAGLE3 sample,
/// ContractError for an id that is too long.
template <class F, class C>
std::vector<ShardPlan> plan_shards(std::span<const SampleRef> refs, const PackOptions& o,
                                   const F& specs, const C& content) {
    constexpr std::uint64_t most_header = 64'000'000;  // the format allows 100 million
    std::vector<ShardPlan> plans;
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < refs.size(); ++i) {
        const auto where = "sample '" + refs[i].sample_id + "'";
        if (refs[i].sample_id.size() > PackIndex::longest_id)
            throw ContractError("an id of " + std::to_string(refs[i].sample_id.size()) + " bytes",
                                where, "Use shorter ids");
        const std::vector<FeatureSpec> own = specs(refs[i]);
        const auto layout = feature_layout(own, where);
        const auto sample = packed_layout(refs[i].sample_id, own, layout.rows, o.states);
        std::uint64_t sample_bytes = 0;
        for (const auto& f : sample.features) {
            sample_bytes +=
                static_cast<std::uint64_t>(f.shape.elements()) * size_of(f.stored_dtype());
            if (f.groups)
                sample_bytes += static_cast<std::uint64_t>(f.scale_shape().elements()) * 4;
        }
        auto room = plans.empty() ? ShardRoom() : plans.back().room;
        room.add(sample);
        if (plans.empty() || room.header_bytes() > most_header ||
            bytes + sample_bytes + room.header_bytes() + room.index_bytes() > o.shard_bytes) {
            room = {};
            room.add(sample);
            plans.push_back({i, i, room});
            bytes = 0;
        }
        bytes += sample_bytes;
        plans.back().room = room;
        plans.back().last = i + 1;
    }
    for (auto& p : plans)
        p.number = plan_number(refs.subspan(p.first, p.last - p.first), o, content);
    return plans;
}

}  // namespace detail
}  // namespace eyas
