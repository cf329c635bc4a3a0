#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "eyas/collective/gloo.hpp"
#include "eyas/eyas.hpp"
#include "tests/collective/ranks.hpp"
#include "tests/pipeline/tiny_draft.hpp"

using namespace eyas;
using test::Ranks;
using test::TinyDraft;

namespace {
using Draft = Eagle3<Cpu, F32>;
using GroupTrainer = Trainer<Draft, Collective<Gloo>>;
constexpr std::int64_t global_batch = 4, steps = 6;

PipelineOptions options(int world) {
    PipelineOptions o;
    o.trainer.schedule.base_rate = 0.5;
    o.trainer.schedule.kind = ScheduleKind::Constant;
    o.trainer.adamw.epsilon = 1;
    o.trainer.epochs = 2;
    o.trainer.seed = 5;
    o.trainer.log_interval = 1;
    o.trainer.accumulation = global_batch / world;
    return o;
}

std::vector<float> weights(Draft& model) {
    std::vector<float> all;
    for (const auto& p : model.parameters()) {
        const auto w = p.value.as<float>();
        all.insert(all.end(), w.begin(), w.end());
    }
    return all;
}

// Trains in `world` processes; every rank's weights, and rank 0's losses.
struct Trained {
    std::vector<std::vector<float>> weights;
    std::vector<double> losses;
};
Trained train(int world, const std::filesystem::path& features,
              const std::filesystem::path& run_dir = {}) {
    Ranks ranks(world, [&](const Rendezvous& r) {
        Store<LocalFiles> store(local_files_options(parse_store_uri("file:" + features.string())));
        TinyDraft<F32> draft;
        auto o = options(world);
        o.trainer.run_dir = run_dir;
        std::vector<double> losses;
        TrainerCallbacks callbacks;
        callbacks.on_log = [&](const LogRecord& l) { losses.push_back(l.loss); };
        Pipeline<Store<LocalFiles>, GroupTrainer> pipeline(store, scan_features(features),
                                                           *draft.model, o, Collective<Gloo>(r));
        if (pipeline.run(callbacks).step != steps) throw DataError("other steps", "test", "");
        if (r.rank == 0)
            write_text_file(features.parent_path() / "losses",
                            test::bytes_of(std::span<const double>(losses)));
        return test::bytes_of(std::span<const float>(weights(*draft.model)));
    });
    Trained t;
    for (const auto& bytes : ranks.results()) t.weights.push_back(test::values_of<float>(bytes));
    t.losses = test::values_of<double>(read_text_file(features.parent_path() / "losses"));
    return t;
}

double furthest(const std::vector<float>& a, const std::vector<float>& b) {
    REQUIRE(a.size() == b.size());
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    return most;
}
}  // namespace

TEST_CASE(
    "EAGLE3 in 1, 2 and 4 processes: the same weights on every rank and each time, and those "
    "of one process but for rounding") {
    const test::RunDirectory work("gloo-trainer");
    const auto features = work.path() / "features";
    test::write_features(features, 12, DType::F32);
    // In a process of its own: OpenMP does not survive a fork.
    Ranks untrained(1, [](const Rendezvous&) {
        return test::bytes_of(std::span<const float>(weights(*TinyDraft<F32>().model)));
    });
    const auto begun = test::values_of<float>(untrained.result(0));
    const auto alone = train(1, features);
    const double moved = furthest(alone.weights[0], begun);
    CHECK(moved > 1e-3);
    // A weight's gradient is a sum of at most 4 samples * 12 tokens * 3 TTT steps = 144 products;
    // in another order it differs by at most 144 * 2^-24 of the sum of their magnitudes. That sum
    // is taken to be at most 16 times the largest gradient that there is. With an epsilon of 1 an
    // update is rate * m / (sqrt(v) + 1), whose slope nowhere exceeds its slope at 0: so what an
    // error adds to a weight is to the error as the largest movement is to the largest gradient,
    // at each of 6 steps (and a little more by what the weights' own differences do to later
    // gradients: twice).
    const double tolerance = 144 * std::ldexp(1.0, -24) * 16 * 2 * moved;
    CHECK(tolerance < moved / 1000);
    for (const int world : {1, 2, 4}) {
        const auto first = train(world, features), second = train(world, features);
        for (const auto& w : first.weights) CHECK((w == first.weights[0]));
        CHECK((first.weights == second.weights));
        CHECK(first.losses == second.losses);
        CHECK(furthest(first.weights[0], alone.weights[0]) <= tolerance);
        REQUIRE(first.losses.size() == static_cast<std::size_t>(steps));
        for (std::size_t i = 0; i < first.losses.size(); ++i)
            CHECK(first.losses[i] == Approx(alone.losses[i]).epsilon(1e-5));
    }
}
