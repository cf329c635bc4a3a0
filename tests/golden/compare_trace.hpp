#pragma once
#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "eyas/device/transfer.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/optimizer/clip.hpp"
#include "eyas/optimizer/schedule.hpp"
#include "report.hpp"
#include "trace.hpp"

namespace eyas::golden {

/// Bounds on each quantity. fp32: those that the reference's own jitter runs support (sensitivity
/// about 1e-6 in losses, 2e-5 in parameters; a fifth or less of the bound). bf16: the distance that
/// the trace itself records between this case in bf16 and in fp32, since any two orders of rounding
/// differ by about that much.
struct Bounds {
    double total_loss = 1e-5, per_step = 2e-6, trajectory = 1e-5, grad_norm = 1e-5,
           parameters = 1e-4;
    double gradient = 1e-5;
    bool exact_counts = true;
    Json gradients;  // per parameter, bf16

    static Bounds of(const Trace& t) {
        Bounds b;
        if (!t.bf16()) return b;
        const auto& s = t.json().at("sensitivity");
        b.total_loss = s.at("step0_total_loss");
        b.per_step = b.trajectory = s.at("loss");
        b.grad_norm = s.at("grad_norm_rel");
        b.parameters = s.at("param_rel_l2");
        b.gradients = s.at("step0_grad_rel_l2");
        b.exact_counts = false;
        return b;
    }
    double gradient_of(const std::string& name) const {
        return gradients.contains(name) ? gradients.at(name).get<double>() : gradient;
    }
};

inline std::vector<double> rates(const StepMetrics& m) {
    std::vector<double> r;
    for (std::size_t k = 0; k < m.loss.size(); ++k) r.push_back(m.acceptance_rate(k));
    return r;
}

/// Losses, counts and gradients of the first batch with the initial weights.
template <class Model>
void compare_step(const Trace& t, const Bounds& bound, Report& report) {
    const auto model = t.model<Model>();
    const auto m = model->forward_backward(t.batch(0), 1.f);
    const auto metrics_only = t.model<Model>()->evaluate(t.batch(0));
    const auto n = t.name();
    report.check(n, "total_loss", max_error({m.total_loss}, t.numbers("out.total_loss")),
                 bound.total_loss);
    report.check(n, "loss per TTT step", max_error(m.loss, t.numbers("out.ploss")), bound.per_step);
    report.check(n, "acceptance rate per TTT step",
                 max_error(rates(m), t.numbers("out.acceptance_rate")), bound.per_step);
    report.check(n, "supervised rows", max_error(m.supervised, t.numbers("out.acc_denom")), 1e-6);
    if (bound.exact_counts)
        report.check(n, "correct rows", max_error(m.correct, t.numbers("out.acc_correct")), 0);
    report.check(n, "evaluate() equals forward_backward()",
                 max_error({metrics_only.total_loss}, {m.total_loss}), 0);
    for (const auto& p : model->parameters()) {
        const auto got = Trace::numbers_of(on_host(model->device(), p.grad));
        if (t.has("grad." + p.name))
            report.check(n, "gradient " + p.name, relative_l2(got, t.numbers("grad." + p.name)),
                         bound.gradient_of(p.name));
        else
            report.check(
                n, "no gradient " + p.name,
                p.receives_gradient ? 1 : relative_l2(got, std::vector<double>(got.size())), 0);
    }
}

/// The whole trajectory: accumulation, clipping, AdamW, schedule.
template <class Model>
void compare_trajectory(const Trace& t, const Bounds& bound, Report& report) {
    const auto model = t.model<Model>();
    const auto& training = t.json().at("training");
    const auto& o = training.at("optimizer");
    const std::int64_t accumulation = training.at("accumulation_steps"),
                       steps = o.at("total_steps");
    AdamW<typename Model::DeviceType> optimizer(model->device(), model->parameters(),
                                                AdamWOptions{.beta1 = o.at("betas")[0],
                                                             .beta2 = o.at("betas")[1],
                                                             .epsilon = o.at("eps"),
                                                             .weight_decay = o.at("weight_decay")});
    const Schedule schedule({.kind = schedule_from_name(o.at("lr_scheduler").get<std::string>()),
                             .base_rate = o.at("lr"),
                             .total_steps = steps,
                             .warmup_ratio = o.at("warmup_ratio")});
    const auto order = t.at("traj.micro_batch").as<std::int64_t>();
    std::vector<double> micro_loss, loss, accept, correct, supervised, lr, norm;
    for (std::int64_t step = 0, micro = 0; step < steps; ++step) {
        model->zero_gradients();
        for (std::int64_t a = 0; a < accumulation; ++a, ++micro) {
            const auto k = static_cast<std::size_t>(order[static_cast<std::size_t>(micro)]);
            const auto m =
                model->forward_backward(t.batch(k), 1.f / static_cast<float>(accumulation));
            const auto r = rates(m);
            micro_loss.push_back(m.total_loss);
            loss.insert(loss.end(), m.loss.begin(), m.loss.end());
            accept.insert(accept.end(), r.begin(), r.end());
            correct.insert(correct.end(), m.correct.begin(), m.correct.end());
            for (double d : m.supervised) supervised.push_back(std::max(d, 1e-6));
        }
        norm.push_back(global_norm(model->device(), std::span(model->parameters())));
        lr.push_back(schedule.rate(step));
        optimizer.step(lr.back(), clip_scale(norm.back(), o.at("max_grad_norm")));
    }
    const auto n = t.name();
    report.check(n, "trajectory micro-step loss",
                 max_error(micro_loss, t.numbers("traj.micro_loss")), bound.trajectory);
    report.check(n, "trajectory loss per TTT step", max_error(loss, t.numbers("traj.ploss")),
                 bound.trajectory);
    report.check(n, "trajectory acceptance rate",
                 max_error(accept, t.numbers("traj.acceptance_rate")), bound.trajectory);
    report.check(n, "trajectory supervised rows",
                 max_error(supervised, t.numbers("traj.acc_denom")), 1e-6);
    if (bound.exact_counts)
        report.check(n, "trajectory correct rows",
                     max_error(correct, t.numbers("traj.acc_correct")), 0);
    report.check(n, "trajectory learning rate", max_error(lr, t.numbers("traj.lr")), 1e-15);
    report.check(n, "trajectory gradient norm", relative_l2(norm, t.numbers("traj.grad_norm")),
                 bound.grad_norm);
    for (const auto& p : model->parameters())
        report.check(n, "final " + p.name,
                     relative_l2(Trace::numbers_of(on_host(model->device(), p.value)),
                                 t.numbers("final." + p.name)),
                     bound.parameters);
}

template <Device D>
void compare_trace(const Trace& t, Report& report) {
    const auto bounds = Bounds::of(t);
    const auto both = [&]<class Model>() {
        compare_step<Model>(t, bounds, report);
        compare_trajectory<Model>(t, bounds, report);
    };
    if (t.bf16())
        both.template operator()<Eagle3<D, Bf16>>();
    else
        both.template operator()<Eagle3<D, F32>>();
}

/// Every trace_*.json in the directories, which must hold some; says how many checks passed.
/// 0 when all did.
template <Device D>
int compare_traces(const std::vector<std::filesystem::path>& directories) {
    Report report;
    for (const auto& directory : directories) {
        std::vector<std::filesystem::path> files;
        std::error_code error;
        for (const auto& e : std::filesystem::directory_iterator(directory, error))
            if (e.path().extension() == ".json" &&
                e.path().filename().string().starts_with("trace_"))
                files.push_back(e.path());
        if (files.empty()) report.fail(directory.string(), "no trace_*.json here");
        std::ranges::sort(files);
        for (const auto& f : files) try {
                compare_trace<D>(Trace(f), report);
            } catch (const std::exception& e) {
                report.fail(f.filename().string(), e.what());
            }
    }
    std::printf("%d passed, %d failed\n", report.passed(), report.failed());
    return report.failed() ? 1 : 0;
}

}  // namespace eyas::golden
