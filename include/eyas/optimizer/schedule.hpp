#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <string_view>

#include "eyas/core/error.hpp"

namespace eyas {

/// How the learning rate goes after the warm-up: down along half a cosine, nowhere, down along a
/// line, or flat and then down along a line (warm-up, stable, decay).
enum class ScheduleKind { Cosine, Constant, Linear, Wsd };

constexpr std::string_view name_of(ScheduleKind k) {
    switch (k) {
        case ScheduleKind::Cosine:
            return "cosine";
        case ScheduleKind::Constant:
            return "constant";
        case ScheduleKind::Linear:
            return "linear";
        case ScheduleKind::Wsd:
            return "wsd";
    }
    return "";
}

/// Throws ContractError for an unknown name.
inline ScheduleKind schedule_from_name(std::string_view name) {
    for (auto k :
         {ScheduleKind::Cosine, ScheduleKind::Constant, ScheduleKind::Linear, ScheduleKind::Wsd})
        if (name_of(k) == name) return k;
    throw ContractError("unknown schedule '" + std::string(name) + "'", "learning-rate schedule",
                        "Use cosine, constant, linear or wsd");
}

struct ScheduleOptions {
    ScheduleKind kind = ScheduleKind::Cosine;
    double base_rate = 1e-4;       // the rate after the warm-up
    std::int64_t total_steps = 0;  // S, optimizer steps; must be positive
    double warmup_ratio = 0.015;   // W = int(warmup_ratio * S)
    double decay_ratio = 0.1;      // wsd only: the last int(decay_ratio * S) steps go down
};

/// Closed forms of SpecForge's schedules (its lr_scheduler.py) in double; `linear` and `wsd` are
/// ours (wsd: Hu et al. 2024, MiniCPM, with a linear decay). Step k counts from 0.
///   k < W     base * (k+1) / W
///   cosine    base/2 * (1 + cos(pi * (k-W) / (S-W)))
///   linear    base * (S-k) / (S-W)
///   wsd       base until S-N, then base * (S-k) / N,   N = int(decay_ratio * S)
/// From step S on the rate is that of step S (0 for all but constant).
class Schedule {
public:
    /// Throws ContractError for options that make no schedule.
    explicit Schedule(const ScheduleOptions& o)
        : o_(o),
          warmup_(steps_of(o.warmup_ratio, "warmup_ratio")),
          decay_(steps_of(o.decay_ratio, "decay_ratio")) {
        if (!(o.base_rate >= 0) || !std::isfinite(o.base_rate))
            refuse("learning rate " + std::to_string(o.base_rate), "Give a rate of at least 0");
        if (warmup_ >= o.total_steps)
            refuse("the warm-up takes all " + std::to_string(o.total_steps) + " steps",
                   "Use a warmup_ratio below 1");
        if (o.kind == ScheduleKind::Wsd && warmup_ + decay_ > o.total_steps)
            refuse("warm-up and decay overlap", "Keep warmup_ratio + decay_ratio at most 1");
    }

    double rate(std::int64_t step) const {
        if (step < warmup_)
            return o_.base_rate * static_cast<double>(step + 1) / static_cast<double>(warmup_);
        const auto s = o_.total_steps;
        const auto k = std::min(step, s);
        const auto left = static_cast<double>(s - k);
        switch (o_.kind) {
            case ScheduleKind::Constant:
                break;
            case ScheduleKind::Linear:
                return o_.base_rate * left / static_cast<double>(s - warmup_);
            case ScheduleKind::Wsd:
                if (s - k < decay_) return o_.base_rate * left / static_cast<double>(decay_);
                break;
            case ScheduleKind::Cosine: {
                const double done =
                    static_cast<double>(k - warmup_) / static_cast<double>(s - warmup_);
                return o_.base_rate / 2 * (1 + std::cos(std::numbers::pi * done));
            }
        }
        return o_.base_rate;
    }

    std::int64_t warmup_steps() const { return warmup_; }  // W
    const ScheduleOptions& options() const { return o_; }

private:
    std::int64_t steps_of(double ratio, const char* name) const {
        if (o_.total_steps <= 0)
            refuse("total_steps is " + std::to_string(o_.total_steps), "Give a positive number");
        if (!(ratio >= 0 && ratio <= 1))
            refuse(std::string(name) + " is " + std::to_string(ratio), "Give a ratio in [0, 1]");
        return static_cast<std::int64_t>(ratio * static_cast<double>(o_.total_steps));
    }
    [[noreturn]] static void refuse(const std::string& what, const std::string& remedy) {
        throw ContractError(what, "learning-rate schedule", remedy);
    }

    ScheduleOptions o_;
    std::int64_t warmup_, decay_;
};

}  // namespace eyas
