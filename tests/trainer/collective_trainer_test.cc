#include <catch2/catch.hpp>
#include <future>
#include <thread>
#include <vector>

#include "eyas/trainer/trainer.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/collective/thread_group.hpp"
#include "tests/trainer/fake_model.hpp"

using namespace eyas;
using test::FakeLoader;
using test::FakeModel;
using test::is_a;
using test::on_both;
using test::on_ranks;
using test::RunDirectory;
using test::text_of;
using test::ThreadGroup;
using test::ThreadMember;

namespace {
using GroupTrainer = Trainer<FakeModel<F32>, ThreadMember>;

TrainerOptions options() {
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
}  // namespace

TEST_CASE("two ranks take the step of one rank that accumulates both") {
    FakeModel<F32> a, b, alone;
    ThreadGroup group(2);
    FakeModel<F32>* models[] = {&a, &b};
    std::vector<LogRecord> logs;
    TrainResult results[2];
    const auto errors = on_both([&](int r) {
        FakeLoader data(4, 1, static_cast<std::uint32_t>(100 + 100 * r));
        GroupTrainer trainer(*models[r], options(), ThreadMember(group, r));
        TrainerCallbacks callbacks;
        if (r == 0) callbacks.on_log = [&](const LogRecord& l) { logs.push_back(l); };
        results[r] = trainer.run(data, callbacks);
    });
    CHECK((results[0].step == 4 && results[1].step == 4));
    CHECK(errors == std::vector<std::string>(2));
    FakeLoader d0(4, 1, 100), d1(4, 1, 200);
    AdamW<Cpu> adam(alone.device(), alone.parameters());
    auto s = options().schedule;
    s.total_steps = 4;
    std::vector<double> losses;
    for (int step = 0; step < 4; ++step) {
        alone.zero_gradients();
        losses.push_back(alone.forward_backward(*d0.next(), 0.5f).total_loss);
        losses.push_back(alone.forward_backward(*d1.next(), 0.5f).total_loss);
        adam.step(Schedule(s).rate(step),
                  clip_scale(global_norm(alone.device(), alone.parameters()), 0.5));
    }
    for (std::size_t i = 0; i < 3; ++i) {
        const auto pa = a.parameters()[i].value.as<float>(),
                   pb = b.parameters()[i].value.as<float>(),
                   pc = alone.parameters()[i].value.as<float>();
        CHECK(std::ranges::equal(pa, pb));
        // The order of additions differs: 4 steps of size <= 0.05 with a relative error of the
        // gradient of about 2^-22 each.
        for (std::size_t k = 0; k < pa.size(); ++k)
            CHECK(std::abs(pa[k] - pc[k]) < 4 * 0.05 * 1e-5);
    }
    REQUIRE(logs.size() == 2);
    CHECK(logs[0].loss ==
          Approx((losses[0] + losses[1] + losses[2] + losses[3]) / 4).epsilon(1e-5));
}

TEST_CASE("a stop or a bad batch on one rank ends all ranks at the same step") {
    FakeModel<F32> a, b;
    ThreadGroup group(2);
    FakeModel<F32>* models[] = {&a, &b};
    SECTION("stop") {
        TrainResult results[2];
        on_both([&](int r) {
            FakeLoader data(10, 1);
            GroupTrainer trainer(*models[r], options(), ThreadMember(group, r));
            results[r] = trainer.run(data, {.on_step = [&](const StepRecord& s) {
                                         if (r == 1 && s.step == 3) trainer.request_stop();
                                     }});
        });
        for (const auto& result : results) {
            CHECK(result.step == 3);
            CHECK(result.stopped);
        }
    }
    SECTION("bad batch") {
        const auto errors = on_both([&](int r) {
            FakeLoader data(10, 1);
            if (r == 1) data.poison_epoch = 0, data.poison_batch = 2;
            GroupTrainer trainer(*models[r], options(), ThreadMember(group, r));
            trainer.run(data);
        });
        CHECK_THAT(errors[0], Catch::Contains("another rank"));
        CHECK_THAT(errors[1], Catch::Contains("e0b2s0"));
    }
}

namespace {
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

constexpr std::int64_t epoch_batches = 24, global_batch = 4, last_step = 12;  // two epochs

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

double furthest(const std::vector<float>& a, const std::vector<float>& b) {
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
const double rounding = 2 * 12 * 0.05 * 28 * 8 * std::ldexp(1.0, -24);
}  // namespace

TEST_CASE("ranks have the same bits, and those of one process but for rounding") {
    const auto alone = train(1, {});
    const auto begun = weights(*std::make_unique<FakeModel<F32>>());
    const double moved = furthest(alone.weights[0], begun);
    CHECK(moved > 1000 * rounding);
    for (const int world : {1, 2, 4}) {
        // Buckets are how sums are cut, not what they are.
        for (const std::int64_t bucket : {1, 64, 128, 1 << 20}) {
            const auto t = train(world, {}, 0, bucket), again = train(world, {}, 0, bucket);
            for (const auto& w : t.weights) CHECK(w == t.weights[0]);
            CHECK(t.weights == again.weights);
            CHECK(furthest(t.weights[0], alone.weights[0]) <= (world == 1 ? 0 : rounding));
        }
        const auto half = train<Bf16>(world, {});
        for (const auto& w : half.weights) CHECK(w == half.weights[0]);
    }
}

TEST_CASE("a run goes on in a world of another size: no batch twice, none left out") {
    const auto alone = train(1, {});
    auto expected = alone.ids;
    std::ranges::sort(expected);
    for (const std::int64_t stop : {2, 6, 9})  // within an epoch, at its end, in the next
        for (const int before : {1, 2, 4}) {
            const RunDirectory stopped("stopped");
            auto first = train(before, stopped.path(), stop);
            for (const int after : {1, 2, 4}) {
                const RunDirectory run("resumed");
                std::filesystem::copy(stopped.path(), run.path(),
                                      std::filesystem::copy_options::recursive);
                const auto rest = train(after, run.path());
                auto ids = first.ids;
                ids.insert(ids.end(), rest.ids.begin(), rest.ids.end());
                std::ranges::sort(ids);
                CHECK(ids == expected);
                for (const auto& w : rest.weights) CHECK(w == rest.weights[0]);
                CHECK(furthest(rest.weights[0], alone.weights[0]) <= rounding);
                if (before == after)
                    CHECK(rest.weights == train(before, {}).weights);  // the same bits
            }
        }
}

TEST_CASE("a checkpoint has the same tensors in the same order whoever wrote it") {
    const RunDirectory one("one"), two("two");
    train(1, one.path());
    train(2, two.path());
    for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
        const SafetensorsFile a(one.path() / "checkpoint-12" / file),
            b(two.path() / "checkpoint-12" / file);
        REQUIRE(a.tensors().size() == b.tensors().size());
        for (std::size_t i = 0; i < a.tensors().size(); ++i) {
            const auto &x = a.tensors()[i], &y = b.tensors()[i];
            CHECK(x.name == y.name);
            CHECK(x.tensor.shape == y.tensor.shape);
            if (x.tensor.dtype != DType::F32) continue;
            const auto u = x.tensor.as<float>(), v = y.tensor.as<float>();
            CHECK(furthest({u.begin(), u.end()}, {v.begin(), v.end()}) <= rounding);
        }
    }
}

TEST_CASE("ranks write while training goes on what they would write at once") {
    const RunDirectory at_once("at-once"), meanwhile("meanwhile");
    for (const auto* run : {&at_once, &meanwhile}) {
        ThreadGroup group(3);
        const auto errors = on_ranks(3, [&](int r) {
            FakeModel<F32> model;
            SharedLoader data(36, 1, r, 3);
            auto o = options();
            o.run_dir = run->path();
            o.save_interval = 3;
            o.keep_checkpoints = 0;
            o.async_checkpoints = run == &meanwhile;
            GroupTrainer trainer(model, o, ThreadMember(group, r));
            trainer.run(data, {.on_step = [&](const StepRecord& s) {
                            if (s.step == 4) trainer.save_copy(run->path() / "best");
                        }});
        });
        for (const auto& e : errors) CHECK(text_of(e) == "");
    }
    for (const char* dir :
         {"checkpoint-3", "best/checkpoint-4", "checkpoint-6", "checkpoint-9", "checkpoint-12"})
        for (const char* file : {"model.safetensors", "optimizer.safetensors", "state.json"})
            CHECK((read_text_file(at_once.path() / dir / file) ==
                   read_text_file(meanwhile.path() / dir / file)));
}

TEST_CASE("another number of samples a step or an epoch is refused in another world") {
    const RunDirectory run("other");
    train(2, run.path(), 6);
    const auto refused = [&](std::int64_t accumulation, std::int64_t batches) {
        FakeModel<F32> model;
        auto o = options();
        o.epochs = 2;
        o.accumulation = accumulation;
        o.schedule.total_steps = last_step;
        o.adamw.epsilon = 1;
        o.run_dir = run.path();
        SharedLoader data(batches, 2, 0, 1);
        Trainer trainer(model, o);
        try {
            trainer.run(data);
        } catch (const ContractError& e) {
            return std::string(e.what());
        }
        return std::string();
    };
    CHECK_THAT(refused(2, epoch_batches), Catch::Contains("samples_per_step: saved 4.0, now 2.0"));
    CHECK_THAT(refused(4, epoch_batches + 4),
               Catch::Contains("samples_per_epoch: saved 24.0, now 28.0"));
    CHECK(refused(4, epoch_batches) == "");
}

namespace {
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

/// Places of a span's begin and end in a trace.
std::pair<std::size_t, std::size_t> place_of(const Json& trace, const std::string& name) {
    std::pair<std::size_t, std::size_t> at{trace.size(), trace.size()};
    for (std::size_t i = 0; i < trace.size(); ++i) {
        if (trace[i].at("name") != name) continue;
        if (trace[i].at("ph") == "B") at.first = std::min(at.first, i);
        if (trace[i].at("ph") == "E") at.second = std::min(at.second, i);
    }
    REQUIRE(at.first < at.second);
    return at;
}
}  // namespace

TEST_CASE("a bucket's reduction begins before the backward ends, and the trace shows it") {
    const RunDirectory run("overlap");
    eyas::create_directories(run.path());
    ThreadGroup group(2);
    // A rank does not go on with its backward before the reduction of lm_head's has begun on both.
    std::promise<void> begun[2];
    std::shared_future<void> both[2] = {begun[0].get_future().share(),
                                        begun[1].get_future().share()};
    bool seen[2] = {};
    group.on_call = [&](int rank, const std::string& call) {
        if (call == "reduce_scatter" && !std::exchange(seen[rank], true)) begun[rank].set_value();
    };
    const auto trace_of = [&](int r) { return run.path() / ("trace-" + std::to_string(r)); };
    const auto errors = on_both([&](int r) {
        TellingModel model;
        model.between = [&] {
            for (const auto& b : both)
                if (b.wait_for(std::chrono::minutes(1)) != std::future_status::ready)
                    throw std::runtime_error("no reduction began during the backward");
        };
        TraceRecorder recorder(trace_of(r), r);
        FakeLoader data(2, 1, static_cast<std::uint32_t>(100 + 100 * r));
        auto o = options();
        o.trace = &recorder;
        o.accumulation = 2;
        o.run_dir = run.path() / "run";
        TellingTrainer trainer(model, o, ThreadMember(group, r));
        trainer.run(data);
    });
    CHECK(errors == std::vector<std::string>(2));
    for (int r = 0; r < 2; ++r) {
        auto trace = read_json_file(trace_of(r));
        for (const auto& e : trace) CHECK(e.at("pid") == r);
        const auto backward = [&] {  // the second of the step is the last
            auto events = trace;
            const auto first = place_of(trace, "forward and backward").second;
            events.erase(events.begin(), events.begin() + static_cast<std::ptrdiff_t>(first) + 1);
            auto at = place_of(events, "forward and backward");
            return std::pair{at.first + first + 1, at.second + first + 1};
        }();
        // Buckets 0 to 2 are fc's, which come last; 3 and 4 are lm_head's.
        CHECK(place_of(trace, "reduce bucket 3").first > backward.first);
        CHECK(place_of(trace, "reduce bucket 3").first < backward.second);
        CHECK(place_of(trace, "reduce bucket 4").first < place_of(trace, "reduce bucket 0").first);
        const auto update = place_of(trace, "update");
        for (const int bucket : {0, 1, 2, 3, 4}) {
            CHECK(place_of(trace, "reduce bucket " + std::to_string(bucket)).second < update.first);
            CHECK(place_of(trace, "gather bucket " + std::to_string(bucket)).first > update.first);
        }
        CHECK(place_of(trace, "wait for data").second < backward.first);
        CHECK(place_of(trace, "checkpoint").first > place_of(trace, "gather bucket 4").second);
    }
}

TEST_CASE("telling of final gradients changes no bit") {
    std::vector<std::vector<float>> told(2), untold(2);
    for (auto* all : {&told, &untold}) {
        ThreadGroup group(2);
        CHECK(on_both([&](int r) {
                  FakeLoader data(6, 1, static_cast<std::uint32_t>(100 + 100 * r));
                  const auto run = [&](auto model) {
                      Trainer<std::remove_reference_t<decltype(*model)>, ThreadMember> trainer(
                          *model, options(), ThreadMember(group, r));
                      trainer.run(data);
                      (*all)[static_cast<std::size_t>(r)] = weights<F32>(*model);
                  };
                  if (all == &told)
                      run(std::make_unique<TellingModel>());
                  else
                      run(std::make_unique<FakeModel<F32>>());
              }) == std::vector<std::string>(2));
    }
    CHECK(told == untold);
    CHECK(told[0] == told[1]);
}

TEST_CASE("a rank that fails in the middle of a backward ends the others, which are told") {
    for (const int bad : {0, 1}) {
        ThreadGroup group(3);
        const auto errors = on_ranks(3, [&](int r) {
            TellingModel model;
            int steps = 0;
            model.between = [&] {
                if (r == bad && ++steps == 3) throw DataError("torn in two", "test", "Mend it");
            };
            FakeLoader data(10, 1, static_cast<std::uint32_t>(100 * r));
            TellingTrainer trainer(model, options(), ThreadMember(group, r));
            trainer.run(data);
        });
        for (int r = 0; r < 3; ++r) {
            const auto& e = errors[static_cast<std::size_t>(r)];
            CHECK((r == bad ? is_a<DataError>(e) : is_a<TransportError>(e)));
        }
    }
}

namespace {
/// A stream that is over, or whose producer is silent, after `length` batches.
class OpenLoader : public FakeLoader {
public:
    OpenLoader(std::int64_t batches, std::uint32_t seed)
        : FakeLoader(1000, 1, seed), length(batches) {}
    std::int64_t batches_per_epoch() const { return 0; }
    const Batch* next() {
        if (position().batch < length) return FakeLoader::next();
        if (silent) throw TransportError("no new sample came", "stream", "Check the producer");
        return nullptr;
    }
    std::int64_t length;
    bool silent = false;
};
}  // namespace

TEST_CASE("when data end on one rank, in the middle of a step, all end before that step") {
    const bool silent = GENERATE(false, true);
    for (const std::int64_t missing : {1, 2, 3, 4}) {  // batches of the third step
        ThreadGroup group(2);
        TrainResult results[2];
        std::vector<float> ends[2];
        std::int64_t steps[2], positions[2];
        const auto errors = on_ranks(2, [&](int r) {
            TellingModel model;
            OpenLoader data(r == 0 ? 1000 : 12 - missing, static_cast<std::uint32_t>(100 * r));
            data.silent = silent;
            auto o = options();
            o.accumulation = 4;
            o.schedule.total_steps = 10;
            TellingTrainer trainer(model, o, ThreadMember(group, r));
            std::exception_ptr error;
            try {
                results[r] = trainer.run(data);
            } catch (...) {
                error = std::current_exception();
            }
            steps[r] = trainer.step();
            positions[r] = data.position().batch;
            ends[r] = weights<F32>(model);
            if (error) std::rethrow_exception(error);
        });
        CHECK(ends[0] == ends[1]);
        for (int r = 0; r < 2; ++r) {
            CHECK(steps[r] == 2);
            CHECK(positions[r] == 8);
            if (silent) {
                CHECK(is_a<TransportError>(errors[static_cast<std::size_t>(r)]));
                continue;
            }
            CHECK(text_of(errors[static_cast<std::size_t>(r)]) == "");
            CHECK(results[r].step == 2);
            CHECK(results[r].left_over == (r == 0 ? 4 : 4 - missing));
        }
    }
}

TEST_CASE("ranks that would go on from different checkpoints all say so") {
    const RunDirectory here("here"), there("there");
    train(2, here.path(), 3);
    std::filesystem::copy(here.path(), there.path(), std::filesystem::copy_options::recursive);
    std::string said;
    SECTION("one sees a newer one") {
        train(2, there.path(), 6);
        said = "rank 1 would go on from checkpoint 6";
    }
    SECTION("one sees none") {
        std::filesystem::remove_all(there.path());
        said = "rank 1 would go on from no checkpoint";
    }
    SECTION("one sees another run's") {
        std::filesystem::remove_all(there.path());
        train(1, there.path(), 3);
        said = "rank 1 would go on from checkpoint 3";
    }
    SECTION("one sees only damage") {
        std::filesystem::resize_file(there.path() / "checkpoint-3" / "model.safetensors", 10);
        said = "no checkpoint here is good";
    }
    ThreadGroup group(2);
    const auto errors = on_ranks(2, [&](int r) {
        FakeModel<F32> model;
        auto o = options();
        o.epochs = 2;
        o.accumulation = 2;
        o.schedule.total_steps = last_step;
        o.adamw.epsilon = 1;
        o.run_dir = r == 0 ? here.path() : there.path();
        SharedLoader data(epoch_batches, 2, r, 2);
        GroupTrainer trainer(model, o, ThreadMember(group, r));
        trainer.run(data);
    });
    CHECK(is_a<ContractError>(errors[0]));
    CHECK((is_a<ContractError>(errors[1]) || is_a<DataError>(errors[1])));
    CHECK_THAT(text_of(errors[1]), Catch::Contains(said));
}

TEST_CASE("a checkpoint or a copy that rank 0 cannot write is an error on every rank") {
    const bool copy = GENERATE(false, true);
    const RunDirectory run("refused");
    eyas::create_directories(run.path());
    write_text_file(run.path() / "file", "no directory");
    ThreadGroup group(3);
    std::atomic<int> steps = 0;
    const auto errors = on_ranks(3, [&](int r) {
        FakeModel<F32> model;
        FakeLoader data(6, 1, static_cast<std::uint32_t>(100 * r));
        auto o = options();
        o.run_dir = run.path() / "run";
        o.save_interval = copy ? 0 : 2;
        o.async_checkpoints = false;
        GroupTrainer trainer(model, o, ThreadMember(group, r));
        trainer.run(data, {.on_step =
                               [&](const StepRecord& s) {
                                   ++steps;
                                   if (s.step == 2 && copy)
                                       trainer.save_copy(run.path() / "file" / "best");
                               },
                           .on_save =
                               [&](const CheckpointRecord&) {
                                   throw ResourceError("no room", "test", "Make some");
                               }});
    });
    CHECK(steps == 6);
    for (const auto& e : errors) CHECK(is_a<ResourceError>(e));
    CHECK_THAT(text_of(errors[2]), Catch::Contains("rank 0 could not write checkpoint 2"));
}
