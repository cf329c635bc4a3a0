#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "evaluation_text.hpp"
#include "eyas/report/event_file.hpp"
#include "eyas/trainer/memory_plan.hpp"
#include "eyas/trainer/records.hpp"
#include "metrics_file.hpp"

namespace eyas::cli {

/// What a run directory tells of its training: run.json (configuration, memory plan),
/// metrics.jsonl, and event files for TensorBoard. One thread.
class RunLog {
public:
    explicit RunLog(std::filesystem::path dir)
        : dir_(std::move(dir)), metrics_(dir_ / "metrics.jsonl") {}

    void start(const OrderedJson& configuration, const MemoryPlan& plan) {
        OrderedJson parts = OrderedJson::object();
        for (const auto& p : plan.parts) parts[p.name] = bytes_text(static_cast<double>(p.bytes));
        parts["in all"] = bytes_text(static_cast<double>(plan.total()));
        eyas::create_directories(dir_);
        write_text_file(
            dir_ / "run.json",
            OrderedJson{{"configuration", configuration}, {"memory_plan", parts}}.dump(2) + "\n");
    }

    void go_on_from(std::int64_t step) { metrics_.go_on_from(step); }

    void write(const LogRecord& r) {
        metrics_.write({{"step", r.step},
                        {"epoch", r.epoch},
                        {"loss", r.loss},
                        {"step_loss", r.step_loss},
                        {"accuracy", r.accuracy},
                        {"acceptance", r.acceptance},
                        {"learning_rate", r.learning_rate},
                        {"grad_norm", r.grad_norm},
                        {"tokens_per_second", r.tokens_per_second},
                        {"padding_percent", r.padding_percent},
                        {"stall_percent", r.stall_percent},
                        {"seconds", r.seconds},
                        {"checkpoint_seconds", r.checkpoint_seconds}});
        scalar("train/loss", r.step, r.loss);
        scalars("train/accuracy", r.step, r.accuracy);
        scalars("train/acceptance", r.step, r.acceptance);
        scalar("train/learning_rate", r.step, r.learning_rate);
        scalar("train/grad_norm", r.step, r.grad_norm);
        scalar("speed/tokens_per_second", r.step, r.tokens_per_second);
        scalar("speed/padding_percent", r.step, r.padding_percent);
        scalar("speed/stall_percent", r.step, r.stall_percent);
        scalar("speed/checkpoint_seconds", r.step, r.checkpoint_seconds);
    }

    /// `point`: evaluation_json() with a step.
    void write_held_out(const OrderedJson& point) {
        metrics_.write({{"held_out", point}});
        const auto step = point.at("step").get<std::int64_t>();
        scalar("held_out/loss", step, point.at("loss"));
        for (const auto* key : {"accuracy", "acceptance"})
            scalars(std::string("held_out/") + key, step, point.at(key));
        if (point.contains("acceptance_length"))
            scalar("held_out/acceptance_length", step, point.at("acceptance_length"));
    }

private:
    void scalar(const std::string& tag, std::int64_t step, double value) {
        if (!events_) events_ = std::make_unique<EventFile>(dir_);
        events_->scalar(tag, step, value);
    }
    void scalars(const std::string& tag, std::int64_t step, const std::vector<double>& values) {
        for (std::size_t k = 0; k < values.size(); ++k)
            scalar(tag + "/ttt_" + std::to_string(k), step, values[k]);
    }

    std::filesystem::path dir_;
    MetricsFile metrics_;
    std::unique_ptr<EventFile> events_;
};

}  // namespace eyas::cli
