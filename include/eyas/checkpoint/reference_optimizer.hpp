#pragma once
#include <algorithm>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eyas/format/pickle_value.hpp"
#include "eyas/format/safetensors.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/optimizer/schedule.hpp"

namespace eyas::detail {

/// The optimizer part of SpecForge's rank state (its optimizer.py: BF16Optimizer.state_dict), made
/// from the tensors of our optimizer.safetensors. Owns the few tensors that are not in that file.
class ReferenceOptimizer {
public:
    /// `names` are the parameters in the reference's order. Throws ContractError for a schedule
    /// that the reference does not have.
    ReferenceOptimizer(const SafetensorsFile& tensors, std::vector<std::string> names,
                       const AdamWOptions& adamw, const ScheduleOptions& schedule,
                       double max_grad_norm, std::int64_t step)
        : tensors_(tensors),
          names_(std::move(names)),
          adamw_(adamw),
          schedule_(schedule),
          max_grad_norm_(max_grad_norm),
          step_(step) {
        const auto kind = schedule.kind;
        if (kind != ScheduleKind::Cosine && kind != ScheduleKind::Constant)
            throw ContractError(
                "the reference has no schedule '" + std::string(name_of(kind)) + "'",
                tensors.path().string(), "Only cosine and constant can be written");
    }

    PickleValue state() {
        PickleList masters;
        for (const auto& name : names_) masters.push_back(tensors_.at("master." + name));
        PickleDict d;
        d.set("optimizer_state_dict", adam_state());
        d.set("scheduler_state_dict", scheduler_state());
        d.set("lr_scheduler_type", std::string(name_of(schedule_.options().kind)));
        d.set("max_grad_norm", max_grad_norm_);
        d.set("fp32_params", std::move(masters));
        return d;
    }

private:
    PickleValue adam_state() {
        PickleDict state;
        PickleList indices;
        for (std::size_t i = 0; i < names_.size(); ++i) {
            const auto index = static_cast<std::int64_t>(i);
            indices.push_back(index);
            if (step_ == 0 || !tensors_.contains("exp_avg." + names_[i])) continue;
            PickleDict one;
            one.set("step", scalar(static_cast<float>(step_)));
            one.set("exp_avg", tensors_.at("exp_avg." + names_[i]));
            one.set("exp_avg_sq", tensors_.at("exp_avg_sq." + names_[i]));
            state.items.emplace_back(index, std::move(one));
        }
        PickleDict group;
        group.set("lr", schedule_.rate(step_));
        group.set("betas", PickleTuple{{adamw_.beta1, adamw_.beta2}});
        group.set("eps", adamw_.epsilon);
        group.set("weight_decay", adamw_.weight_decay);
        group.set("amsgrad", false);
        group.set("maximize", false);
        group.set("foreach", PickleValue());
        group.set("capturable", false);
        group.set("differentiable", false);
        group.set("fused", PickleValue());
        group.set("decoupled_weight_decay", true);
        group.set("initial_lr", schedule_.options().base_rate);
        group.set("params", std::move(indices));
        PickleDict d;
        d.set("state", std::move(state));
        d.set("param_groups", PickleList{std::move(group)});
        return d;
    }

    // The reference steps its warm-up scheduler to W, and from then on the one behind it.
    PickleValue scheduler_state() const {
        const auto w = schedule_.warmup_steps(), outer = std::min(step_, w), inner = step_ - outer;
        PickleDict after;
        if (schedule_.options().kind == ScheduleKind::Cosine) {
            after.set("T_max", schedule_.options().total_steps - w);
            after.set("eta_min", 0.0);
        }
        add_counters(after, inner,
                     inner > 0 ? schedule_.rate(step_) : schedule_.options().base_rate);
        PickleDict d;
        d.set("warmup_epochs", w);
        d.set("finished", step_ >= w);
        add_counters(d, outer, schedule_.rate(step_));
        d.set("after_scheduler_type",
              std::string(schedule_.options().kind == ScheduleKind::Cosine ? "CosineAnnealingLR"
                                                                           : "_FlatLR"));
        d.set("after_scheduler_dict", std::move(after));
        return d;
    }

    void add_counters(PickleDict& d, std::int64_t steps, double rate) const {
        d.set("base_lrs", PickleList{schedule_.options().base_rate});
        d.set("last_epoch", steps);
        d.set("_step_count", steps + 1);
        d.set("_is_initial", false);
        d.set("_get_lr_called_within_step", false);
        d.set("_last_lr", PickleList{rate});
    }

    TensorView scalar(float value) {
        Tensor t(DType::F32, Shape{});
        t.as<float>()[0] = value;
        return owned_.emplace_back(std::move(t)).view();
    }

    const SafetensorsFile& tensors_;
    std::vector<std::string> names_;
    AdamWOptions adamw_;
    Schedule schedule_;
    double max_grad_norm_;
    std::int64_t step_;
    std::deque<Tensor> owned_;
};

}  // namespace eyas::detail
