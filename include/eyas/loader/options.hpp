#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "eyas/core/error.hpp"
#include "eyas/core/memory_resource.hpp"
#include "eyas/loader/acknowledgement.hpp"
#include "eyas/sample/capture_convention.hpp"
#include "eyas/sample/feature_layout.hpp"
#include "eyas/sample/manifest.hpp"

namespace eyas {

struct LoaderOptions {
    std::int64_t batch_size = 1;  // B rows: of a sample each, or packed
    std::int64_t max_len = 2048;  // longer samples are cut to their first max_len rows
    // Samples are packed, in their order, into rows of up to so many tokens (detail::RowPacker says
    // how), which cut them as max_len does. 0: a sample a row. An epoch's number of batches then
    // depends on its order. Of a stream, up to 8 rows wait for more samples before they are used: a
    // store that frees what was trained must have room for them, too.
    std::int64_t pack_tokens = 0;
    // The rows of a batch are padded to a multiple of so many tokens, of max_len or pack_tokens at
    // most: batches then come in few shapes, as a device's recordings and plans want it. Padding
    // counts in a loss's mean over B*T rows as ever.
    std::int64_t pad_to_multiple_of = 1;
    std::uint64_t seed = 0;  // of the order: epoch e is drawn with seed + e
    bool shuffle = true;
    bool drop_last = true;        // leave out the short batch at the end of an epoch
    std::int64_t rank = 0;        // of this trainer
    std::int64_t world = 1;       // trainers that share the data
    std::int64_t prefetch = 2;    // batches read ahead; 0: read in next(), no thread
    std::int64_t threads = 1;     // that read ahead, each a batch of its own
    std::int64_t ring_bytes = 0;  // memory of all prefetch + 1 batches; 0: what the largest need
    std::int64_t epochs = 1;
    // Where the states of batches lie: memory of a device, which the store reads into where
    // why_not_into(store, ...) is empty; it outlives the loader. Null: with the rest, the host's.
    DeviceRoom* states = nullptr;
    AcknowledgementSink* acknowledgements = nullptr;  // told by acknowledge(); outlives the loader

    bool packed() const { return pack_tokens > 0; }
    /// Rows of a sample after the cut, at most.
    std::int64_t longest_sample() const {
        return packed() ? std::min(max_len, pack_tokens) : max_len;
    }
    /// T of a batch whose longest row has so many tokens. Of options that check_loader_options
    /// takes.
    std::int64_t padded(std::int64_t tokens) const {
        const auto most = packed() ? pack_tokens : max_len;
        const auto gap = (pad_to_multiple_of - tokens % pad_to_multiple_of) % pad_to_multiple_of;
        return tokens + std::min(gap, std::max<std::int64_t>(most - tokens, 0));
    }
};

/// The same for held-out samples: all of them once, in their order, a sample a row, whatever the
/// rank, padded to the longest only, and none is acknowledged. So figures depend neither on packing
/// nor on padding. Their batches take what memory they need.
inline LoaderOptions held_out_options(LoaderOptions o) {
    o.shuffle = o.drop_last = false;
    o.rank = 0;
    o.world = 1;
    o.ring_bytes = 0;
    o.epochs = 1;
    o.max_len = o.longest_sample();
    o.pack_tokens = 0;
    o.pad_to_multiple_of = 1;
    o.acknowledgements = nullptr;
    o.states = nullptr;
    return o;
}

/// Where in the run a batch lies, both counted from 0.
struct LoaderPosition {
    std::int64_t epoch = 0;
    std::int64_t batch = 0;
    friend auto operator<=>(const LoaderPosition&, const LoaderPosition&) = default;
    // Implied by the other, but not to nvcc.
    friend bool operator==(const LoaderPosition&, const LoaderPosition&) = default;
};

namespace detail {

/// Throws ContractError for impossible options.
inline void check_loader_options(const LoaderOptions& o) {
    if (o.batch_size < 1 || o.max_len < 1 || o.pack_tokens < 0 || o.pad_to_multiple_of < 1 ||
        o.prefetch < 0 || o.prefetch > 1024 || o.epochs < 0 || o.threads < 1 || o.threads > 256 ||
        o.ring_bytes < 0 || o.world < 1 || o.rank < 0 || o.rank >= o.world)
        throw ContractError(
            "batch_size " + std::to_string(o.batch_size) + ", max_len " +
                std::to_string(o.max_len) + ", pack_tokens " + std::to_string(o.pack_tokens) +
                ", pad_to_multiple_of " + std::to_string(o.pad_to_multiple_of) + ", prefetch " +
                std::to_string(o.prefetch) + ", threads " + std::to_string(o.threads) +
                ", ring_bytes " + std::to_string(o.ring_bytes) + ", epochs " +
                std::to_string(o.epochs) + ", rank " + std::to_string(o.rank) + " of " +
                std::to_string(o.world),
            "LoaderOptions",
            "Use positive sizes, 0 <= prefetch <= 1024, 1 <= threads <= 256 and 0 <= rank < world");
}

/// Batches that a trainer makes of its `mine` rows of an epoch. Throws ContractError where there is
/// none.
inline std::int64_t checked_batches(std::int64_t mine, const LoaderOptions& o) {
    const auto batches =
        o.drop_last ? mine / o.batch_size : (mine + o.batch_size - 1) / o.batch_size;
    if (batches == 0)
        throw ContractError(std::to_string(mine) + (o.packed() ? " packed rows" : " samples") +
                                " per trainer make no batch of " + std::to_string(o.batch_size),
                            "LoaderOptions",
                            "Use smaller batches, drop_last = false, or more samples");
    return batches;
}

/// What can be known before any tensor is read: every ref is an EAGLE3 sample with the target's
/// hidden states, and all that have specs agree, as do those that say how they were captured.
class RefCheck {
public:
    /// The next ref. Throws DataError that names the sample.
    void operator()(const SampleRef& ref) {
        const auto where = "sample '" + ref.sample_id + "'";
        if (ref.strategy != "eagle3")
            throw DataError("was captured for strategy '" + ref.strategy + "'", where,
                            "Capture features for eagle3");
        const auto repr = ref.metadata.find("target_repr");
        if (repr != ref.metadata.end() && !repr->is_null() && *repr != "hidden_state")
            throw DataError("its target is " + repr->dump(), where,
                            "Capture features with target_repr hidden_state");
        convention_(ref);
        if (ref.feature_specs.empty()) return;
        const auto here = feature_layout(ref.feature_specs, where);
        if (!first_) first_ = here;
        check_same_width(here, *first_, where);
    }

private:
    std::optional<FeatureLayout> first_;
    CommonConvention convention_;
};

}  // namespace detail

}  // namespace eyas
