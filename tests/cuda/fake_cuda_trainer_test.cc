// The same trainer, pipeline and checkpoints through the device Cuda, on a CUDA runtime of the
// host; beside the kernels' stand-in, to the same bits.
#include "eyas/device/cuda.cuh"
#include "eyas/device/host_blocks.hpp"
#include "fake_cuda.hpp"
#include "tests/cuda/own_memory.hpp"

using namespace eyas;
using namespace eyas::test;
using Told = std::vector<std::string>;

TEMPLATE_TEST_CASE("a run through Cuda, killed and resumed", "", F32, Bf16) {
    own_memory::killed_and_resumed<TestType, Cuda>();
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEMPLATE_TEST_CASE("packed rows through Cuda", "", F32, Bf16) {
    own_memory::packed_rows<TestType, Cuda>();
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEMPLATE_TEST_CASE("when a stream works, and in which order its threads, changes no bit", "", F32,
                   Bf16) {
    const RunDirectory work("cuda");
    const auto features = work.path() / "features";
    write_features(features, 7, dtype_of<typename TestType::Element>);
    Store<LocalFiles> files(local_files_options(parse_store_uri("file:" + features.string())));
    const auto manifest = scan_features(features);
    const auto train = [&](auto& draft, const char* name) {
        Pipeline run(files, manifest, *draft.model, own_memory::options(work.path() / name, 0));
        return *run.run().checkpoint;
    };
    TinyDraft<TestType, HostBlocks> stand_in;
    const auto want = train(stand_in, "blocks");
    for (const bool eager : {false, true}) {
        fake_cuda::eager(eager), fake_cuda::backwards(eager);
        TinyDraft<TestType, Cuda> draft;
        const auto got = train(draft, eager ? "eager" : "lazy");
        CHECK(compare_tensors(want, got).identical());
    }
    fake_cuda::eager(false), fake_cuda::backwards(false);
    CHECK(fake_cuda::failures() == Told());
}

TEMPLATE_TEST_CASE("a run that replays its steps, resumed by one that does not, and the other way",
                   "", F32, Bf16) {
    const RunDirectory work("cuda");
    const auto features = work.path() / "features";
    write_features(features, 7, dtype_of<typename TestType::Element>);
    Store<LocalFiles> files(local_files_options(parse_store_uri("file:" + features.string())));
    const auto manifest = scan_features(features);
    const auto train = [&](bool replays, const char* name, std::int64_t steps) {
        TinyDraft<TestType, Cuda> draft(1, Activations::Keep, Cuda{}, replays);
        Pipeline run(files, manifest, *draft.model, own_memory::options(work.path() / name, steps));
        fake_cuda::reset();
        const auto result = run.run();
        if (!replays) CHECK(fake_cuda::calls("cudaGraphLaunch") == 0);
        return *result.checkpoint;
    };
    const auto want = train(false, "plain", 0);
    CHECK(compare_tensors(want, train(true, "replayed", 0)).identical());
    CHECK(fake_cuda::calls("cudaGraphLaunch") > 0);
    for (const bool first : {false, true}) {
        const auto name = first ? "first" : "then";
        train(first, name, 5);
        CHECK(compare_tensors(want, train(!first, name, 0)).identical());
    }
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("a kernel's fault ends the run with its error") {
    const RunDirectory work("cuda");
    const auto features = work.path() / "features";
    write_features(features, 7, DType::F32);
    Store<LocalFiles> files(local_files_options(parse_store_uri("file:" + features.string())));
    const auto manifest = scan_features(features);
    fake_cuda::reset();
    for (const int nth : {1, 100, 300}) {
        INFO("kernel " << nth);
        fake_cuda::fail("kernel", nth, cudaErrorIllegalAddress);
        const auto run = [&] {
            TinyDraft<F32, Cuda> draft;
            Pipeline(files, manifest, *draft.model, own_memory::options(work.path() / "run", 0))
                .run();
        };
        CHECK_THROWS_WITH(run(), Catch::Contains("cudaErrorIllegalAddress") &&
                                     Catch::Contains("compute-sanitizer"));
        CHECK(fake_cuda::failed());
        fake_cuda::reset();
        CHECK(fake_cuda::failures() == Told());
        CHECK(fake_cuda::alive() == Told());
        std::filesystem::remove_all(work.path() / "run");
    }
}
