#pragma once
#include <chrono>
#include <cstdint>

#include "eyas/trainer/metric_totals.hpp"
#include "eyas/trainer/records.hpp"

namespace eyas::detail {

/// The clock and the sums of one log interval; turns them into a record and starts the next.
/// Times of an interval that a resume cut in two count from the resume.
class LogWindow {
public:
    using Clock = std::chrono::steady_clock;

    LogWindow(std::int64_t first_step, double stall_seconds)
        : first_step_(first_step), stall_(stall_seconds) {}

    double seconds() const { return since(start_); }

    /// `all` holds the sums of the interval over all ranks, `timed` those that fell into this run
    /// (they are what the clock saw). The record's step, epoch, rate and norm are the caller's.
    LogRecord record(const MetricTotals& all, const MetricTotals& timed, LogRecord r,
                     double stall_seconds) {
        r.loss = all.mean_loss();
        r.padding_percent = 100 * all.padding();
        for (std::size_t k = 0; k < all.ttt_length(); ++k) {
            r.step_loss.push_back(all.mean_loss(k));
            r.accuracy.push_back(all.accuracy(k));
            r.acceptance.push_back(all.acceptance_rate(k));
        }
        const double took = std::max(since(interval_), 1e-9);
        r.tokens_per_second = timed.tokens / took;
        r.supervised_tokens_per_second = timed.supervised_tokens() / took;
        r.stall_percent = std::min(100.0, 100 * (stall_seconds - stall_) / took);
        r.seconds = seconds();
        r.eta_seconds = r.seconds *
                        static_cast<double>(std::max<std::int64_t>(0, r.last_step - r.step)) /
                        static_cast<double>(r.step - first_step_);
        interval_ = Clock::now();
        stall_ = stall_seconds;
        return r;
    }

private:
    static double since(Clock::time_point t) {
        return std::chrono::duration<double>(Clock::now() - t).count();
    }

    std::int64_t first_step_;
    double stall_;
    Clock::time_point start_ = Clock::now(), interval_ = start_;
};

}  // namespace eyas::detail
