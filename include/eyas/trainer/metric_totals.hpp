#pragma once
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "eyas/core/json.hpp"
#include "eyas/loader/batch.hpp"
#include "eyas/model/concept.hpp"

namespace eyas {

/// Sums of step metrics over any number of batches, one entry per TTT step (K of them). Ratios are
/// formed from sums only, so they do not depend on how samples were grouped into batches.
/// A step loss is a mean over a batch's B*T rows, so it is summed times its rows, as the reference
/// does.
struct MetricTotals {
    std::vector<double> loss, correct, supervised, acceptance_sum, acceptance_rows;
    double total_loss = 0;  // sum of rows * total_loss
    double rows = 0;        // sum of B*T
    double tokens = 0;      // rows with attention mask 1
    double batches = 0;

    void add(const StepMetrics& m, const Batch& batch) {
        const auto n = static_cast<double>(batch.batch_size() * batch.tokens());
        resize(m.loss.size());
        for (std::size_t k = 0; k < m.loss.size(); ++k) {
            loss[k] += n * m.loss[k];
            correct[k] += m.correct[k];
            supervised[k] += m.supervised[k];
            acceptance_sum[k] += m.acceptance_sum[k];
            acceptance_rows[k] += m.acceptance_rows[k];
        }
        total_loss += n * m.total_loss;
        rows += n;
        for (auto real : batch.attention_mask.as<std::int64_t>())
            tokens += static_cast<double>(real);
        ++batches;
    }

    /// Adds other totals of the same K (or of none).
    void add(const MetricTotals& other) {
        resize(other.loss.size());
        auto mine = packed(), theirs = other.packed();
        for (std::size_t i = 0; i < theirs.size(); ++i) mine[i] += theirs[i];
        unpack(mine);
    }

    std::size_t ttt_length() const { return loss.size(); }
    double mean_loss() const { return ratio(total_loss, rows); }
    double mean_loss(std::size_t k) const { return ratio(loss[k], rows); }
    double accuracy(std::size_t k) const { return ratio(correct[k], supervised[k]); }
    double acceptance_rate(std::size_t k) const {
        return ratio(acceptance_sum[k], acceptance_rows[k]);
    }
    /// Share of the batches' rows that hold no token.
    double padding() const { return 1 - ratio(tokens, rows); }
    /// Supervised tokens, before the TTT steps' shifts.
    double supervised_tokens() const { return supervised.empty() ? 0 : supervised[0]; }

    /// Everything in one row, for a reduction over ranks; unpack() is the inverse for equal K.
    std::vector<double> packed() const {
        std::vector<double> all;
        for (const auto* v : {&loss, &correct, &supervised, &acceptance_sum, &acceptance_rows})
            all.insert(all.end(), v->begin(), v->end());
        all.insert(all.end(), {total_loss, rows, tokens, batches});
        return all;
    }
    void unpack(const std::vector<double>& all) {
        auto at = all.begin();
        for (auto* v : {&loss, &correct, &supervised, &acceptance_sum, &acceptance_rows})
            for (auto& x : *v) x = *at++;
        for (auto* x : {&total_loss, &rows, &tokens, &batches}) *x = *at++;
    }

    /// Of as many TTT steps, nothing.
    MetricTotals zeros() const {
        MetricTotals none;
        none.resize(ttt_length());
        return none;
    }

    Json to_json() const { return {{"ttt_length", loss.size()}, {"sums", packed()}}; }

    /// Throws DataError for anything that to_json() did not make.
    static MetricTotals from_json(const Json& json, const std::string& where) {
        const auto k = required<std::uint64_t>(json, "ttt_length", where);
        const auto sums = required<std::vector<double>>(json, "sums", where);
        if (sums.size() < 4 || (sums.size() - 4) / 5 != k || (sums.size() - 4) % 5 != 0)
            throw DataError("metric sums do not fit ttt_length", where, "Use another checkpoint");
        MetricTotals t;
        t.resize(k);
        t.unpack(sums);
        return t;
    }

private:
    void resize(std::size_t k) {
        if (loss.size() >= k) return;
        for (auto* v : {&loss, &correct, &supervised, &acceptance_sum, &acceptance_rows})
            v->resize(k);
    }
    static double ratio(double a, double b) { return b > 0 ? a / b : 0; }
};

}  // namespace eyas
