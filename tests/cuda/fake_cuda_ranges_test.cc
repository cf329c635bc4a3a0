// The stages of a training as NVTX ranges, through NVTX's own headers, to a tool that listens.
#include <algorithm>
#include <catch2/catch.hpp>

#include "eyas/device/cuda.cuh"
#include "eyas/device/cuda_ranges.cuh"
#include "eyas/eyas.hpp"
#include "fake_cuda.hpp"
#include "fake_nvtx.hpp"
#include "tests/cuda/own_memory.hpp"

using namespace eyas;
using Lane = SpanListener::Lane;
using Told = std::vector<std::string>;

namespace {
std::string text_of(const fake_nvtx::Event& e) { return (e.begins ? "+" : "-") + e.name; }

Told texts_of(const std::vector<fake_nvtx::Event>& events) {
    Told all;
    for (const auto& e : events) all.push_back(text_of(e));
    return all;
}
}  // namespace

TEST_CASE("spans are ranges with their names and numbers, nested, of one domain") {
    {
        CudaRanges ranges;
        CHECK(fake_nvtx::domains() == 1);
        const Span outer(&ranges, Lane::Trainer, "checkpoint");
        for (const std::int64_t i : {0, 12})
            const Span inner(&ranges, Lane::Trainer, "write checkpoint", i);
    }
    CHECK(fake_nvtx::domains() == 0);
    const auto events = fake_nvtx::events();
    CHECK(texts_of(events) == Told{"+checkpoint", "+write checkpoint 0", "-write checkpoint 0",
                                   "+write checkpoint 12", "-write checkpoint 12", "-checkpoint"});
    for (const auto& e : events) CHECK(e.domain == "eyas");
    CHECK(fake_cuda::failures() == Told());
}

TEST_CASE("a training's stages are told, on the threads that do them, as a trace has them") {
    const test::RunDirectory work("ranges");
    const auto features = work.path() / "features";
    test::write_features(features, 7, DType::F32);
    const auto file = work.path() / "trace.json";
    {
        Store<LocalFiles> files(local_files_options(parse_store_uri("file:" + features.string())));
        const auto manifest = scan_features(features);
        CudaRanges ranges;
        TraceRecorder trace(file, 0);
        SpanListeners both;
        both.add(ranges);
        both.add(trace);
        auto o = test::own_memory::options(work.path() / "run", 4);
        o.trainer.trace = &both;
        test::TinyDraft<F32, Cuda> draft;
        Pipeline(files, manifest, *draft.model, o).run();
    }
    const auto events = fake_nvtx::events();
    Told here, elsewhere, of_trace;
    for (const auto& e : events)
        (e.thread == std::this_thread::get_id() ? here : elsewhere).push_back(text_of(e));
    for (const auto& e : read_json_file(file))
        if (e.at("ph") != "M")
            of_trace.push_back((e.at("ph") == "B" ? "+" : "-") + e.at("name").get<std::string>());
    // Of 4 steps, with a checkpoint that a thread of its own writes after 3.
    Told own;
    for (int i = 1; i <= 4; ++i) {
        for (const char* stage : {"wait for data", "forward and backward", "update"})
            own.insert(own.end(), {std::string("+") + stage, std::string("-") + stage});
        if (i == 3) own.insert(own.end(), {"+checkpoint", "-checkpoint"});
    }
    own.insert(own.end(),
               {"+checkpoint", "+write checkpoint 4", "-write checkpoint 4", "-checkpoint"});
    CHECK(here == own);
    CHECK(elsewhere == Told{"+write checkpoint 3", "-write checkpoint 3"});
    auto all = texts_of(events);
    std::ranges::sort(all);
    std::ranges::sort(of_trace);
    CHECK(all == of_trace);
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}
