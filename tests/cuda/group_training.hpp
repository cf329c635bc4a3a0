#pragma once
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "eyas/eyas.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/collective/thread_group.hpp"
#include "tests/pipeline/tiny_draft.hpp"

namespace eyas::test {

/// Trains a small draft in ranks that are threads of this process, each with a device of its own.
/// `Group`: made of the number of ranks, it gives what rank r needs by device(r) and
/// member(r, device).
template <class Group>
class GroupTraining {
public:
    using Device = typename Group::DeviceType;
    using Member = typename Group::MemberType;
    static constexpr std::int64_t global_batch = 4, samples = 8, steps = 4;

    explicit GroupTraining(const std::filesystem::path& features, bool replay_steps = false)
        : features_(features), replay_steps_(replay_steps) {}

    static PipelineOptions options(int world) {
        PipelineOptions o;
        o.trainer.schedule.base_rate = 0.5;
        o.trainer.schedule.kind = ScheduleKind::Constant;
        o.trainer.schedule.total_steps = steps;
        o.trainer.adamw.epsilon = 1;
        o.trainer.epochs = 2;
        o.trainer.seed = 5;
        o.trainer.accumulation = global_batch / world;
        o.trainer.bucket_bytes = 1024;  // several
        o.trainer.save_interval = 2;
        return o;
    }

    /// The weights of every rank as fp32, after `max_steps` (0: all) of a run in run_dir.
    template <class P>
    std::vector<std::vector<float>> run(int world, const std::filesystem::path& run_dir = {},
                                        std::int64_t max_steps = 0) const {
        Group group(world);
        std::vector<std::vector<float>> weights(static_cast<std::size_t>(world));
        const auto errors = on_ranks(world, [&](int r) {
            Store<LocalFiles> store(
                local_files_options(parse_store_uri("file:" + features_.string())));
            const Device device = group.device(r);
            // What goes on takes all from the checkpoint.
            TinyDraft<P, Device> draft(max_steps == 0 && !run_dir.empty() ? 2 : 1,
                                       Activations::Keep, device, replay_steps_);
            auto o = options(world);
            o.trainer.run_dir = run_dir;
            o.trainer.max_steps = max_steps;
            Pipeline<Store<LocalFiles>, Trainer<Eagle3<Device, P>, Member>> pipeline(
                store, scan_features(features_), *draft.model, o, group.member(r, device));
            pipeline.run();
            weights[static_cast<std::size_t>(r)] = weights_of(*draft.model);
        });
        for (const auto& e : errors) REQUIRE(text_of(e) == "");
        return weights;
    }

    template <class M>
    static std::vector<float> weights_of(M& model) {
        std::vector<float> all;
        for (const auto& p : model.parameters()) {
            Tensor wide(DType::F32, p.value.shape);
            convert_into(on_host(model.device(), p.value), wide.mutable_view());
            all.insert(all.end(), wide.template as<float>().begin(),
                       wide.template as<float>().end());
        }
        return all;
    }

private:
    std::filesystem::path features_;
    bool replay_steps_;
};

inline double furthest(const std::vector<float>& a, const std::vector<float>& b) {
    REQUIRE(a.size() == b.size());
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    return most;
}

/// How far weights may lie from those of another order of additions, where training moved a weight
/// by `moved` at most. A weight's gradient is a sum of at most 4 samples * 12 tokens * 3 TTT steps
/// = 144 products; in another order it differs by at most 144 * 2^-24 of the sum of their
/// magnitudes, which is taken to be at most 16 times the largest gradient that there is. With an
/// epsilon of 1 an update is rate * m / (sqrt(v) + 1), whose slope nowhere exceeds its slope at 0:
/// so what an error adds to a weight is to the error as the largest movement is to the largest
/// gradient, at each of the steps (and a little more by what the weights' own differences do to
/// later gradients: twice).
inline double order_of_additions(double moved) {
    return 144 * std::ldexp(1.0, -24) * 16 * 2 * moved;
}

/// Ranks have the same bits, each time, and those of one rank but for rounding.
template <class Group>
void check_ranks_agree(const std::filesystem::path& features) {
    const GroupTraining<Group> training(features);
    TinyDraft<F32, Cpu> untrained;
    const auto alone = training.template run<F32>(1);
    const double moved = furthest(alone[0], GroupTraining<Group>::weights_of(*untrained.model));
    CHECK(moved > 1e-3);
    for (const int world : {2, 4}) {
        const auto first = training.template run<F32>(world),
                   second = training.template run<F32>(world);
        for (const auto& w : first) CHECK((w == first[0]));
        CHECK((first == second));
        CHECK(furthest(first[0], alone[0]) <= order_of_additions(moved));
        const auto half = training.template run<Bf16>(world);
        for (const auto& w : half) CHECK((w == half[0]));
        CHECK((half == training.template run<Bf16>(world)));
    }
}

/// A run of two ranks stops, and one, two or four go on from its checkpoint to the same end.
template <class Group, class P>
void check_ranks_resume(const std::filesystem::path& work, const std::filesystem::path& features) {
    const GroupTraining<Group> training(features);
    const auto whole = training.template run<P>(2, work / "whole", GroupTraining<Group>::steps);
    TinyDraft<P, Cpu> untrained;
    const double moved = furthest(whole[0], GroupTraining<Group>::weights_of(*untrained.model));
    training.template run<P>(2, work / "stopped", 3);
    for (const int world : {1, 2, 4}) {
        const auto run = work / ("resumed-" + std::to_string(world));
        std::filesystem::copy(work / "stopped", run, std::filesystem::copy_options::recursive);
        const auto after = training.template run<P>(world, run);
        for (const auto& w : after) CHECK((w == after[0]));
        if (world == 2) {
            CHECK((after == whole));
            const auto last = "checkpoint-" + std::to_string(GroupTraining<Group>::steps);
            CHECK(compare_tensors(run / last, work / "whole" / last).identical());
        } else if (std::same_as<P, F32>) {
            CHECK(furthest(after[0], whole[0]) <= order_of_additions(moved));
        }
    }
}

}  // namespace eyas::test
