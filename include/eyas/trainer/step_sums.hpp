#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "eyas/trainer/metric_totals.hpp"

namespace eyas::detail {

/// What the batches of one optimizer step gave on this rank.
struct StepSums {
    MetricTotals metrics = {};
    std::vector<std::string> ids = {}, bad = {};  // samples; those in a loss that is not finite

    void add(const StepMetrics& m, const Batch& batch) {
        metrics.add(m, batch);
        ids.insert(ids.end(), batch.sample_ids.begin(), batch.sample_ids.end());
        if (!std::isfinite(m.total_loss))
            bad.insert(bad.end(), batch.sample_ids.begin(), batch.sample_ids.end());
    }
};

}  // namespace eyas::detail
