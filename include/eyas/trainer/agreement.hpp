#pragma once
#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eyas/checkpoint/state.hpp"
#include "eyas/collective/any_rank.hpp"
#include "eyas/core/checksum.hpp"
#include "eyas/trainer/metric_totals.hpp"

namespace eyas::detail {

template <class C>
MetricTotals over_ranks(C& collective, MetricTotals totals) {
    auto row = totals.packed();
    collective.all_reduce(std::span<double>(row));
    totals.unpack(row);
    return totals;
}

/// f() on every rank. Where it throws on one, every rank throws: that one what f threw, the others
/// an OthersError.
template <class OthersError, class C, class F>
void all_or_none(C& collective, const std::string& what, const std::string& where, F&& f) {
    std::exception_ptr failure;
    try {
        f();
    } catch (...) {
        failure = std::current_exception();
    }
    bool failed = true;
    try {
        failed = any_rank(collective, failure != nullptr);
    } catch (...) {
        if (!failure) throw;  // else this rank's own tells more
    }
    if (!failed) return;
    if (failure) std::rethrow_exception(failure);
    throw OthersError(what, where, "See the message of the rank that failed");
}

/// A checkpoint, so that ranks can tell whether theirs is the same.
struct FoundCheckpoint {
    std::int64_t step = -1;  // none
    std::uint64_t checksum = 0;

    static FoundCheckpoint of(const LatestCheckpoint& c) {
        if (!c.path) return {};
        const auto text = read_text_file(*c.path / state_file);
        return {c.state.step, xxh3(std::as_bytes(std::span(text)))};
    }
    bool operator==(const FoundCheckpoint&) const = default;
    std::string text() const {
        return step < 0 ? "no checkpoint"
                        : "checkpoint " + std::to_string(step) + " (" + hex64(checksum) + ")";
    }
};

/// Throws ContractError, on every rank, unless all found the same checkpoint, or none.
template <class C>
void require_same_checkpoint(C& collective, const FoundCheckpoint& found,
                             const std::string& where) {
    std::vector<FoundCheckpoint> all(static_cast<std::size_t>(collective.world()));
    all[static_cast<std::size_t>(collective.rank())] = found;
    const std::vector<std::size_t> one_each(all.size(), 1);
    collective.all_gather(std::span(all), one_each);
    for (std::size_t p = 1; p < all.size(); ++p)
        if (all[p] != all[0])
            throw ContractError("rank " + std::to_string(p) + " would go on from " + all[p].text() +
                                    ", rank 0 from " + all[0].text(),
                                where,
                                "Give all ranks one run directory, which all of them see alike");
}

}  // namespace eyas::detail
