#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "eyas/loader/options.hpp"
#include "eyas/sample/sample_ref.hpp"

namespace eyas::detail {

/// Rows of a batch one after the other, each of one sample or several: indices of samples.
class SampleRows {
public:
    std::size_t size() const { return ends_.size(); }
    std::span<const std::int64_t> operator[](std::size_t row) const {
        const auto begin = row == 0 ? 0 : ends_[row - 1];
        return std::span(samples_).subspan(begin, ends_[row] - begin);
    }
    void push_back(std::span<const std::int64_t> row) {
        samples_.insert(samples_.end(), row.begin(), row.end());
        ends_.push_back(samples_.size());
    }

private:
    std::vector<std::int64_t> samples_;
    std::vector<std::size_t> ends_;  // of each row in samples_
};

/// The refs of a batch in the order of its rows, and the row of each, ascending from 0.
struct BatchRefs {
    std::vector<const SampleRef*> refs = {};
    std::vector<std::int64_t> rows = {};

    void clear() {
        refs.clear();
        rows.clear();
    }
};

/// Puts samples into rows of up to `tokens`, in the order in which they come: first fit over a
/// bounded window. A few rows are open; a sample goes to the oldest of them that has room for it.
/// Where none has, the fullest (of equally full ones the oldest) is closed if the window is full,
/// and a new one opened. A row without room left is closed at once. Closed rows never change, so
/// they depend on nothing but the lengths so far.
class RowPacker {
public:
    static constexpr std::size_t window = 8;  // open rows

    explicit RowPacker(std::int64_t tokens) : tokens_(tokens) {}

    /// The next sample, of 1 to `tokens` rows.
    void add(std::int64_t sample, std::int64_t length) {
        auto row =
            std::ranges::find_if(open_, [&](const Row& r) { return r.used + length <= tokens_; });
        if (row == open_.end()) {
            if (open_.size() == window) close(std::ranges::max_element(open_, {}, &Row::used));
            row = open_.insert(open_.end(), Row{});
        }
        row->samples.push_back(sample);
        row->used += length;
        if (row->used == tokens_) close(row);
    }

    /// After the last sample: closes what is open, the oldest first.
    void finish() {
        while (!open_.empty()) close(open_.begin());
    }

    const SampleRows& closed() const { return closed_; }

private:
    struct Row {
        std::vector<std::int64_t> samples = {};
        std::int64_t used = 0;
    };

    void close(std::vector<Row>::iterator row) {
        closed_.push_back(row->samples);
        open_.erase(row);
    }

    std::int64_t tokens_;
    std::vector<Row> open_;  // oldest first
    SampleRows closed_;
};

/// Rows that a sample takes of a packed row. Throws DataError where only reading it would tell.
inline std::int64_t packed_length(const SampleRef& ref, const LoaderOptions& o) {
    const auto where = "sample '" + ref.sample_id + "'";
    if (ref.feature_specs.empty())
        throw DataError("has no feature specs, and packing must know its length", where,
                        "Ingest the sample again, or train without pack_tokens");
    return std::min(feature_layout(ref.feature_specs, where).rows, o.longest_sample());
}

}  // namespace eyas::detail
