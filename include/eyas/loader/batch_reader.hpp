#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <exception>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/error_types.hpp"
#include "eyas/loader/collate.hpp"
#include "eyas/loader/sample_rows.hpp"
#include "eyas/loader/source.hpp"
#include "eyas/sample/feature_layout.hpp"
#include "eyas/store/remote_read.hpp"

namespace eyas::detail {

/// Rethrows the exception in flight with the sample's id in front, keeping its type. What is not an
/// eyas::Error passes unchanged.
[[noreturn]] inline void rethrow_for_sample(const std::string& id) {
    try {
        throw;
    } catch (const Error& e) {
        std::rethrow_exception(make_error(
            error_type_of(e), e.what(), "sample '" + id + "'",
            "Earlier batches are unaffected; correct the sample or leave it out of the manifest"));
    }
}

/// A batch with the leases of the samples it was read from.
template <class S>
struct LeasedBatch {
    BatchArena arena;
    std::vector<LeaseOf<S>> leases = {};  // one per sample
};

/// Reads the samples of one batch from a store straight into an arena. One thread at a time.
template <SampleSource S>
class BatchReader {
public:
    BatchReader(S& store, const LoaderOptions& options) : store_(store), options_(options) {
        for (const auto name : feature::all) buffers_.push_back({std::string(name), {}});
    }

    /// Returns false when `stop` became true on the way. Errors carry the id of the first bad
    /// sample.
    bool read(const BatchRefs& chosen, LeasedBatch<S>& into, const std::atomic<bool>& stop) {
        const auto& refs = chosen.refs;
        if (auto* room = into.arena.room()) room->enter();
        into.leases.clear();
        into.leases.reserve(refs.size());
        samples_.clear();
        for (const auto* ref : refs) {
            if (stop) return false;
            guarded(*ref, [&] { describe(*ref, into.leases); });
        }
        const auto tokens = options_.padded(find_places(chosen.rows));
        into.arena.lay_out(chosen.rows.back() + 1, tokens, samples_[0].layout.width,
                           samples_[0].layout.dtype, options_.packed());
        for (std::size_t i = 0; i < refs.size(); ++i)
            samples_[i].straight = goes_straight(samples_[i], into, i);
        read_straight(refs, into);
        for (std::size_t i = 0; i < refs.size(); ++i) {
            if (stop) return false;
            const auto& s = samples_[i];
            if (!s.straight) guarded(*refs[i], [&] { fill_by_scratch(i, into); });
            into.arena.finish_sample(s.row, cut(s.layout), refs[i]->sample_id, s.first);
            if (i + 1 == refs.size() || samples_[i + 1].row != s.row)
                into.arena.finish_row(s.row, s.first + cut(s.layout));
        }
        return true;
    }

private:
    struct Sample {
        FeatureLayout layout;
        std::span<const FeatureSpec> specs;
        std::vector<FeatureSpec> found = {};  // where the ref has no specs: from the data
        std::int64_t row = 0, first = 0;      // of the batch, and the token in it: its place
        bool straight = false;                // read to its place, not through scratch memory
    };

    std::int64_t cut(const FeatureLayout& l) const {
        return std::min(l.rows, options_.longest_sample());
    }

    // Samples of one row follow each other. Returns the tokens of the longest row.
    std::int64_t find_places(std::span<const std::int64_t> rows) {
        std::int64_t tokens = 0, used = 0;
        for (std::size_t i = 0; i < samples_.size(); ++i) {
            if (i > 0 && rows[i] != rows[i - 1]) used = 0;
            samples_[i].row = rows[i];
            samples_[i].first = used;
            used += cut(samples_[i].layout);
            tokens = std::max(tokens, used);
        }
        return tokens;
    }

    template <class F>
    static void guarded(const SampleRef& ref, const F& work) {
        try {
            work();
        } catch (...) {
            rethrow_for_sample(ref.sample_id);
        }
    }

    // Takes a lease and learns the sample's shapes.
    void describe(const SampleRef& ref, std::vector<LeaseOf<S>>& leases) {
        leases.push_back(store_.acquire(ref));
        Sample s;
        s.specs = ref.feature_specs;
        if (ref.feature_specs.empty()) {
            for (const auto& t : store_.view(leases.back())) s.found.push_back(spec_of(t));
            s.specs = s.found;
        }
        s.layout = feature_layout(s.specs, "features");
        samples_.push_back(std::move(s));
        check_same_width(samples_.back().layout, samples_.front().layout, "features");
    }

    // Samples that are not cut; to a device, those that the transport brings there.
    bool goes_straight(const Sample& s, const LeasedBatch<S>& into, std::size_t i) const {
        if (s.layout.rows > options_.longest_sample()) return false;
        if (!into.arena.room()) return true;
        if constexpr (requires { is_elsewhere(store_.stored(into.leases[i])); })
            return is_elsewhere(store_.stored(into.leases[i]));
        return false;
    }

    // All of a batch at once.
    void read_straight(std::span<const SampleRef* const> refs, LeasedBatch<S>& into) {
        places_.resize(std::max(places_.size(), refs.size()));
        std::vector<typename S::ReadRequest> requests;
        std::vector<const SampleRef*> whose;
        for (std::size_t b = 0; b < refs.size(); ++b) {
            if (!samples_[b].straight) continue;
            places_[b].clear();
            for (const auto name : feature::all) {
                const auto& spec = named_spec(samples_[b].specs, name, "features");
                const auto place = into.arena.place(name, samples_[b].row, samples_[b].layout.rows,
                                                    samples_[b].first);
                places_[b].push_back({std::string(name), {place.data, spec.dtype, spec.shape}});
            }
            requests.push_back({&into.leases[b], places_[b]});
            whose.push_back(refs[b]);
        }
        const auto status = store_.read_each(requests);
        for (std::size_t i = 0; i < status.size(); ++i)
            if (status[i]) guarded(*whose[i], [&] { std::rethrow_exception(status[i]); });
    }

    // What is cut, or has bytes here that belong to a device.
    void fill_by_scratch(std::size_t b, LeasedBatch<S>& into) {
        const auto& s = samples_[b];
        std::byte* spare = scratch(s.specs);
        for (auto& buffer : buffers_) {
            const auto& spec = named_spec(s.specs, buffer.name, "features");
            buffer.buffer = {spare, spec.dtype, spec.shape};
            spare += spec.size_bytes();
        }
        store_.read_into(into.leases[b], buffers_);
        for (const auto& buffer : buffers_) {
            into.arena.copy(buffer.buffer.data,
                            into.arena.place(buffer.name, s.row, cut(s.layout), s.first));
        }
    }

    // All features of one sample, one after the other: int64 first, so each is aligned for its
    // type.
    std::byte* scratch(std::span<const FeatureSpec> specs) {
        std::size_t bytes = 0;
        for (const auto name : feature::all)
            bytes += named_spec(specs, name, "features").size_bytes();
        const auto wanted = static_cast<std::int64_t>(bytes);
        if (scratch_.empty() || scratch_.elements() < wanted)
            scratch_ = Tensor(DType::U8, Shape{wanted});
        return scratch_.mutable_view().data;
    }

    S& store_;
    LoaderOptions options_;
    std::vector<Sample> samples_;
    std::vector<NamedBuffer> buffers_;              // one per feature, in the order of feature::all
    std::vector<std::vector<NamedBuffer>> places_;  // per sample of the batch
    Tensor scratch_;
};

}  // namespace eyas::detail
