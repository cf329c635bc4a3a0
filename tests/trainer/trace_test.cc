#include "eyas/trainer/trace.hpp"

#include <catch2/catch.hpp>
#include <thread>
#include <vector>

#include "tests/checkpoint/run_directory.hpp"

using namespace eyas;
using Lane = TraceRecorder::Lane;

namespace {
std::vector<Json> spans_in(const Json& trace) {
    std::vector<Json> spans;
    for (const auto& e : trace)
        if (e.at("ph") != "M") spans.push_back(e);
    return spans;
}
}  // namespace

TEST_CASE("a trace lists begins and ends in their order, with rank, lane and rising times") {
    const test::RunDirectory dir("trace");
    eyas::create_directories(dir.path());
    const auto file = dir.path() / "trace.json";
    {
        TraceRecorder recorder(file, 3);
        {
            const Span outer(&recorder, Lane::Trainer, "update");
            const Span inner(&recorder, Lane::Exchange, "gather bucket", 12);
        }
        const Span none(nullptr, Lane::Trainer, "nobody records it");
    }
    const auto spans = spans_in(read_json_file(file));
    REQUIRE(spans.size() == 4);
    const std::vector<std::string> order{"update B", "gather bucket 12 B", "gather bucket 12 E",
                                         "update E"};
    double last = 0;
    for (std::size_t i = 0; i < 4; ++i) {
        const auto& e = spans[i];
        CHECK(e.at("name").get<std::string>() + " " + e.at("ph").get<std::string>() == order[i]);
        CHECK(e.at("pid") == 3);
        CHECK(e.at("tid") == (i == 1 || i == 2 ? 1 : 0));
        CHECK(e.at("ts").get<double>() >= last);
        last = e.at("ts").get<double>();
    }
    CHECK_THAT(read_text_file(file), Catch::Contains("rank 3"));
}

TEST_CASE("several threads record into one trace, more than it keeps in memory") {
    const test::RunDirectory dir("trace-threads");
    eyas::create_directories(dir.path());
    const auto file = dir.path() / "trace.json";
    TraceRecorder recorder(file, 0);
    std::vector<std::thread> threads;
    for (const auto lane : {Lane::Trainer, Lane::Exchange})
        threads.emplace_back([&, lane] {
            for (int i = 0; i < 1000; ++i) const Span span(&recorder, lane, "reduce bucket", i);
        });
    for (auto& t : threads) t.join();
    // A trainer that is killed now leaves what was written so far, without the closing bracket.
    const auto so_far = read_text_file(file);
    CHECK(so_far.size() > 100'000);
    CHECK(so_far.back() != ']');
    recorder.close();
    recorder.close();
    { const Span late(&recorder, Lane::Trainer, "too late"); }
    int depth[2] = {0, 0};
    const auto spans = spans_in(read_json_file(file));
    CHECK(spans.size() == 4000);
    for (const auto& e : spans) {
        auto& d = depth[e.at("tid").get<std::size_t>()];
        d += e.at("ph") == "B" ? 1 : -1;
        CHECK((d == 0 || d == 1));
    }
}

TEST_CASE("a trace that cannot be made is an error; one that cannot be written ends itself alone") {
    CHECK_THROWS_AS(TraceRecorder("/proc/self/no-such-directory/trace", 0), Error);
    TraceRecorder full("/dev/full", 0);
    for (int i = 0; i < 2000; ++i) const Span span(&full, Lane::Trainer, "update", i);
    CHECK_THROWS_AS(full.close(), ResourceError);
    full.close();  // it was told
}
