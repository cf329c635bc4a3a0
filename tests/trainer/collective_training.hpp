#pragma once
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "eyas/trainer/trainer.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/collective/thread_group.hpp"
#include "tests/trainer/fake_model.hpp"

// Trainers of a group of threads: what they train with and on.
namespace eyas::test {

using GroupTrainer = Trainer<FakeModel<F32>, ThreadMember>;

inline TrainerOptions options() {
    TrainerOptions o;
    o.schedule.base_rate = 0.05;
    o.log_interval = 2;
    o.bucket_bytes = 64;  // several buckets a parameter
    return o;
}

template <class P>
std::vector<float> weights(FakeModel<P>& m) {
    std::vector<float> all;
    for (const auto& p : m.parameters())
        for (const auto x : p.value.template as<typename P::Element>())
            all.push_back(static_cast<float>(x));
    return all;
}

/// Batch n of rank r is batch n * world + r of a sequence that does not depend on the world.
class SharedLoader {
public:
    using Position = FakeLoader::Position;
    SharedLoader(std::int64_t batches, std::int64_t epochs, int rank, int world)
        : all_(batches, epochs),
          batches_(batches / world),
          epochs_(epochs),
          rank_(rank),
          world_(world) {}

    const Batch* next() {
        if (position_.epoch >= epochs_) return nullptr;
        all_.seek({position_.epoch, position_.batch * world_ + rank_});
        const Batch* batch = all_.next();
        ids.insert(ids.end(), batch->sample_ids.begin(), batch->sample_ids.end());
        if (++position_.batch == batches_) position_ = {position_.epoch + 1, 0};
        return batch;
    }
    void seek(Position p) { position_ = p.batch == batches_ ? Position{p.epoch + 1, 0} : p; }
    Position position() const { return position_; }
    std::int64_t batches_per_epoch() const { return batches_; }
    double stall_seconds() const { return 0; }
    bool interrupted() const { return false; }
    void acknowledge(Position, std::int64_t) {}

    std::vector<std::string> ids = {};  // in the order in which they were trained

private:
    FakeLoader all_;
    std::int64_t batches_, epochs_;
    int rank_, world_;
    Position position_;
};
static_assert(BatchSource<SharedLoader>);

inline constexpr std::int64_t epoch_batches = 24, global_batch = 4, last_step = 12;  // two epochs

struct Trained {
    std::vector<std::vector<float>> weights;  // of each rank
    std::vector<std::string> ids;             // of all ranks
};

/// Trains `world` ranks up to `max_steps` (0: all), in run_dir where there is one.
template <class P = F32>
Trained train(int world, const std::filesystem::path& run_dir, std::int64_t max_steps = 0,
              std::int64_t bucket_bytes = 64) {
    ThreadGroup group(world);
    Trained t;
    t.weights.resize(static_cast<std::size_t>(world));
    std::mutex mutex;
    const auto errors = on_ranks(world, [&](int r) {
        auto o = options();
        o.epochs = 2;
        o.accumulation = global_batch / world;
        o.max_steps = max_steps;
        o.schedule.total_steps = last_step;
        o.adamw.epsilon = 1;  // see `rounding`
        o.run_dir = run_dir;
        o.bucket_bytes = bucket_bytes;
        FakeModel<P> model(run_dir.empty() ? 1u : 1u + static_cast<unsigned>(max_steps == 0));
        SharedLoader data(epoch_batches, 2, r, world);
        Trainer<FakeModel<P>, ThreadMember> trainer(model, o, ThreadMember(group, r));
        const auto result = trainer.run(data);
        if (result.step != (max_steps == 0 ? last_step : max_steps))
            throw std::runtime_error("ended at step " + std::to_string(result.step));
        const std::lock_guard lock(mutex);
        t.weights[static_cast<std::size_t>(r)] = weights(model);
        t.ids.insert(t.ids.end(), data.ids.begin(), data.ids.end());
    });
    for (const auto& e : errors) REQUIRE(text_of(e) == "");
    return t;
}

inline double furthest(const std::vector<float>& a, const std::vector<float>& b) {
    REQUIRE(a.size() == b.size());
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        most = std::max(most, static_cast<double>(std::abs(a[i] - b[i])));
    return most;
}

/// Two runs of the same batches a step that add up their gradients in another order. A weight's
/// gradient is a sum of at most c = 4 batches * 6 rows = 24 products and 4 pulls: 28 terms whose
/// other order moves it by at most 28 * 2^-24 of the sum of their magnitudes, which is below 8 (a
/// row's error is below 8, its share 1 / (6 * 4)). With epsilon 1 an update has the slope `rate` in
/// the gradient at most, over 12 steps, and twice that for what moved weights do to later
/// gradients.
inline const double rounding = 2 * 12 * 0.05 * 28 * 8 * std::ldexp(1.0, -24);

/// Tells of its gradients: lm_head's first, and `between` is called before it goes on to fc's.
class TellingModel : public FakeModel<F32> {
public:
    using FakeModel<F32>::forward_backward;
    StepMetrics forward_backward(const Batch& batch, float scale, const GradientIsFinal& on_final) {
        auto metrics = forward_backward(batch, scale);
        on_final(2);
        between();
        on_final(1);  // receives none
        on_final(0);
        on_final(0);
        return metrics;
    }
    std::function<void()> between = [] {};
};
static_assert(TellsFinalGradients<TellingModel> && !TellsFinalGradients<FakeModel<F32>>);
using TellingTrainer = Trainer<TellingModel, ThreadMember>;

}  // namespace eyas::test
