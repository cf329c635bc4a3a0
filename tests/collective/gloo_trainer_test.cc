#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <set>
#include <sstream>

#include "eyas/collective/gloo.hpp"
#include "eyas/eyas.hpp"
#include "tests/collective/ranks.hpp"
#include "tests/pipeline/tiny_draft.hpp"
#include "tests/trainer/fake_model.hpp"

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

namespace {
/// A loader that notes which samples it gave.
class Recording {
public:
    explicit Recording(Loader<Store<LocalFiles>>& loader) : loader_(loader) {}
    const Batch* next() {
        const Batch* batch = loader_.next();
        for (const auto& id : batch->sample_ids) ids += id + "\n";
        return batch;
    }
    void seek(LoaderPosition p) { loader_.seek(p); }
    LoaderPosition position() const { return loader_.position(); }
    std::int64_t batches_per_epoch() const { return loader_.batches_per_epoch(); }
    double stall_seconds() const { return loader_.stall_seconds(); }
    bool interrupted() const { return loader_.interrupted(); }
    void acknowledge(LoaderPosition p, std::int64_t step) { loader_.acknowledge(p, step); }

    std::string ids = {};

private:
    Loader<Store<LocalFiles>>& loader_;
};
static_assert(BatchSource<Recording>);

struct Part {
    std::vector<float> weights;
    std::vector<std::string> ids;  // of all ranks, sorted
};

/// Trains `world` ranks in run_dir until `max_steps` (0: to the end), from what lies there.
Part train_part(int world, const std::filesystem::path& features,
                const std::filesystem::path& run_dir, std::int64_t max_steps) {
    Ranks ranks(world, [&](const Rendezvous& r) {
        Store<LocalFiles> store(local_files_options(parse_store_uri("file:" + features.string())));
        TinyDraft<F32> draft(max_steps == 0 ? 2 : 1);  // what goes on takes all from the checkpoint
        auto o = options(world);
        o.loader.seed = o.trainer.seed;
        o.loader.epochs = o.trainer.epochs;
        o.loader.rank = r.rank;
        o.loader.world = world;
        const auto manifest = scan_features(features);
        o.trainer.identity["data"] = data_identity(manifest, o.loader);
        o.trainer.run_dir = run_dir;
        o.trainer.max_steps = max_steps;
        o.trainer.schedule.total_steps = steps;
        o.trainer.bucket_bytes = 1024;
        Loader loader(store, manifest, o.loader);
        Recording recording(loader);
        GroupTrainer trainer(*draft.model, o.trainer, Collective<Gloo>(r));
        trainer.run(recording);
        write_text_file(run_dir / ("ids-" + std::to_string(r.rank)), recording.ids);
        return test::bytes_of(std::span<const float>(weights(*draft.model)));
    });
    Part part;
    for (const auto& bytes : ranks.results()) {
        const auto w = test::values_of<float>(bytes);
        if (!part.weights.empty()) CHECK((w == part.weights));
        part.weights = w;
    }
    for (int r = 0; r < world; ++r) {
        std::istringstream lines(read_text_file(run_dir / ("ids-" + std::to_string(r))));
        for (std::string id; std::getline(lines, id);) part.ids.push_back(id);
    }
    std::ranges::sort(part.ids);
    return part;
}
}  // namespace

TEST_CASE(
    "two processes stop, and one, two or four go on to the same end but for rounding, each sample "
    "once an epoch") {
    const test::RunDirectory work("gloo-resume");
    const auto features = work.path() / "features";
    test::write_features(features, 12, DType::F32);
    Ranks untrained(1, [](const Rendezvous&) {
        return test::bytes_of(std::span<const float>(weights(*TinyDraft<F32>().model)));
    });
    const auto begun = test::values_of<float>(untrained.result(0));
    const auto whole = train_part(2, features, work.path() / "whole", steps);
    const double moved = furthest(whole.weights, begun);
    CHECK(moved > 1e-3);
    // Twice each of 12 samples, in two epochs.
    REQUIRE(whole.ids.size() == 24);
    for (std::size_t i = 0; i < 24; i += 2) CHECK(whole.ids[i] == whole.ids[i + 1]);
    CHECK(std::set(whole.ids.begin(), whole.ids.end()).size() == 12);
    for (const std::int64_t stop : {2, 4}) {  // within the first epoch, and within the second
        const auto stopped = work.path() / ("stopped-" + std::to_string(stop));
        const auto before = train_part(2, features, stopped, stop);
        for (const int world : {1, 2, 4}) {
            const auto run = work.path() / ("resumed-" + std::to_string(stop * 10 + world));
            std::filesystem::copy(stopped, run, std::filesystem::copy_options::recursive);
            const auto after = train_part(world, features, run, 0);
            auto ids = before.ids;
            ids.insert(ids.end(), after.ids.begin(), after.ids.end());
            std::ranges::sort(ids);
            CHECK(ids == whole.ids);
            // As between whole runs of different worlds, above.
            const double tolerance = 144 * std::ldexp(1.0, -24) * 16 * 2 * moved;
            CHECK(furthest(after.weights, whole.weights) <= (world == 2 ? 0 : tolerance));
        }
    }
}

TEST_CASE("a process whose backward fails in the middle leaves the other with its name") {
    class Torn : public test::FakeModel<F32> {
    public:
        using test::FakeModel<F32>::forward_backward;
        StepMetrics forward_backward(const Batch& batch, float scale,
                                     const GradientIsFinal& on_final) {
            auto metrics = forward_backward(batch, scale);
            on_final(2);
            if (--calls_left == 0) throw DataError("torn in two", "test", "Mend it");
            on_final(0);
            return metrics;
        }
        int calls_left = 100;
    };
    for (const int victim : {0, 1}) {
        Ranks ranks(2, [&](const Rendezvous& r) {
            Torn model;
            if (r.rank == victim) model.calls_left = 3;
            test::FakeLoader data(20, 1, static_cast<std::uint32_t>(r.rank));
            TrainerOptions o;
            o.bucket_bytes = 64;
            Trainer<Torn, Collective<Gloo>> trainer(model, o, Collective<Gloo>(r));
            try {
                trainer.run(data);
            } catch (const TransportError& e) {
                return "lost: " + std::string(e.what());
            }
            return std::string("whole");
        });
        CHECK_THAT(ranks.result(victim), Catch::StartsWith("test: torn in two"));
        CHECK_THAT(ranks.result(1 - victim),
                   Catch::StartsWith("lost: ") &&
                       Catch::Contains("rank " + std::to_string(victim) + " went away"));
    }
}
