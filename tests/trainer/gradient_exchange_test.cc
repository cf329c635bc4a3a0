// Gradients are exchanged while the model computes others.
#include <future>

#include "eyas/trainer/trace.hpp"
#include "tests/trainer/collective_training.hpp"

using namespace eyas;
using namespace eyas::test;

namespace {
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
