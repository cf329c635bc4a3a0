#pragma once
#include <bit>
#include <cstdint>
#include <map>
#include <string>

#include "eyas/core/json.hpp"
#include "eyas/ingest/validate.hpp"

namespace eyas {

/// What a set of samples teaches: how much of it is supervised, and how long samples are.
struct SampleStatistics {
    std::int64_t samples = 0, tokens = 0;
    std::int64_t supervised_tokens = 0;
    std::int64_t unsupervised_samples = 0;            // nothing can be learnt from them
    std::map<std::int64_t, std::int64_t> up_to = {};  // samples of (n/2, n] tokens, by n = 2^k

    void add(std::span<const std::int64_t> loss_mask, std::int64_t max_len) {
        const auto supervised = eyas::supervised_tokens(loss_mask, max_len);
        ++samples;
        tokens += std::ssize(loss_mask);
        supervised_tokens += supervised;
        unsupervised_samples += supervised == 0;
        ++up_to[static_cast<std::int64_t>(std::bit_ceil(loss_mask.size()))];
    }

    /// Throws DataError where there are samples, and not one supervised token in them.
    void check(const std::string& where) const {
        if (samples > 0 && supervised_tokens == 0)
            throw DataError(
                "no supervised token in any of " + std::to_string(samples) + " samples", where,
                "Mark answers with 1 in loss_mask; a sample's last row has nothing to predict");
    }

    OrderedJson to_json() const {
        OrderedJson lengths = OrderedJson::object();
        for (const auto& [n, count] : up_to) lengths[std::to_string(n)] = count;
        return {{"samples", samples},
                {"tokens", tokens},
                {"supervised_tokens", supervised_tokens},
                {"unsupervised_samples", unsupervised_samples},
                {"lengths_up_to", lengths}};
    }
};

}  // namespace eyas
