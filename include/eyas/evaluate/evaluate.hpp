#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "eyas/evaluate/acceptance.hpp"
#include "eyas/trainer/batch_source.hpp"
#include "eyas/trainer/metric_totals.hpp"

namespace eyas {

/// Held-out figures of a draft: sums over all batches, so that rates do not depend on batching.
/// (The loss is a mean over padded rows: it does, unless a batch is one sample or all have one
/// length.)
struct Evaluation : MetricTotals {
    std::int64_t samples = 0;
    Acceptance decoded;  // of decoding along them (Replay), where that was asked for

    /// Tokens per target pass to expect if draft token k were accepted with its acceptance rate
    /// whatever came before: 1 + a0 + a0 a1 + ... + a0...a(K-1). An estimate from
    /// teacher-forced positions; real decoding may differ.
    double expected_tokens_per_pass() const {
        double expected = 1, survives = 1;
        for (std::size_t k = 0; k < ttt_length(); ++k) expected += survives *= acceptance_rate(k);
        return expected;
    }
};

struct EvaluateOptions {
    std::int64_t max_batches = 0;                                     // 0: all of the loader
    std::function<void(std::int64_t batches_done)> on_progress = {};  // optional
};

/// Runs the model over what the loader still has to give, without gradients. Throws what the loader
/// and the model throw, and ContractError for a loader that gives nothing.
template <DraftModel M, BatchSource L>
Evaluation evaluate(M& model, L& loader, const EvaluateOptions& options = {}) {
    Evaluation e;
    std::int64_t done = 0;
    while (options.max_batches == 0 || done < options.max_batches) {
        const Batch* batch = loader.next();
        if (!batch) break;
        e.add(model.evaluate(*batch), *batch);
        e.samples += static_cast<std::int64_t>(batch->sample_ids.size());
        ++done;
        if (options.on_progress) options.on_progress(done);
    }
    if (done == 0)
        throw ContractError("the loader gave no batch", "evaluate",
                            "Name held-out samples, and a batch size of at most their number");
    return e;
}

}  // namespace eyas
