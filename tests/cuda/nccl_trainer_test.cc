// Trainer<Eagle3<Cuda, P>, Collective<Nccl>> over a CUDA and a NCCL of the host (tests/cuda/fake).
// Work of a GPU is done there when somebody waits for it, so what the exchange orders wrongly
// computes with what was there before.
#include <catch2/catch.hpp>

#include "eyas/ops/block/all.hpp"
#include "tests/cuda/blocks_rank.hpp"
#include "tests/cuda/group_training.hpp"
#include "tests/cuda/nccl_ranks.hpp"

using namespace eyas;
using test::GroupTraining;
using test::NcclMember;
using test::NcclRanks;
using Told = std::vector<std::string>;

namespace {
/// The stand-in with Cuda's shapes of work, so that a rank computes Cuda's bits.
struct LikeCuda : HostBlocks {
    static constexpr std::int64_t head_tile_rows = Cuda::head_tile_rows;
    static constexpr std::int64_t attention_tile = Cuda::attention_tile;
};
struct BlocksGroup {
    using DeviceType = LikeCuda;
    using MemberType = Collective<test::BlocksRank>;
    explicit BlocksGroup(int world) : threads(world) {}
    static LikeCuda device(int) { return LikeCuda(); }
    MemberType member(int rank, const LikeCuda& device) {
        return MemberType(threads, rank, device);
    }
    test::ThreadGroup threads;
};

void check_fake() {
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}
}  // namespace

TEST_CASE("ranks on GPUs agree, and with one rank but for rounding") {
    const test::RunDirectory work("nccl-ranks");
    test::write_features(work.path() / "features", GroupTraining<NcclRanks>::samples, DType::F32);
    test::check_ranks_agree<NcclRanks>(work.path() / "features");
    check_fake();
}

TEMPLATE_TEST_CASE("ranks on GPUs get the bits of ranks that are joined in the host's memory", "",
                   F32, Bf16) {
    const test::RunDirectory work("nccl-bits");
    test::write_features(work.path() / "features", GroupTraining<NcclRanks>::samples, DType::F32);
    const GroupTraining<NcclRanks> gpus(work.path() / "features");
    const GroupTraining<BlocksGroup> threads(work.path() / "features");
    for (const int world : {2, 4}) {
        fake_cuda::eager(world == 4);
        CHECK((gpus.run<TestType>(world) == threads.run<TestType>(world)));
    }
    fake_cuda::eager(false);
    const GroupTraining<NcclRanks> replaying(work.path() / "features", true);
    fake_cuda::reset();
    CHECK((replaying.run<TestType>(2) == threads.run<TestType>(2)));
    CHECK(fake_cuda::calls("cudaGraphLaunch") > 0);
    check_fake();
}

TEMPLATE_TEST_CASE("ranks on GPUs stop, and another number of them goes on", "", F32, Bf16) {
    const test::RunDirectory work("nccl-resume");
    test::write_features(work.path() / "features", GroupTraining<NcclRanks>::samples, DType::F32);
    test::check_ranks_resume<NcclRanks, TestType>(work.path(), work.path() / "features");
    check_fake();
}

TEST_CASE("a rank that fails in training ends the others with a TransportError") {
    const test::RunDirectory work("nccl-dies");
    test::write_features(work.path() / "features", GroupTraining<NcclRanks>::samples, DType::F32);
    for (const int dies : {0, 1}) {
        const NcclRanks ranks(2);
        const auto errors = test::on_ranks(2, [&](int r) {
            Store<LocalFiles> store(local_files_options(
                parse_store_uri("file:" + (work.path() / "features").string())));
            const Cuda gpu(r);
            test::TinyDraft<F32, Cuda> draft(1, Activations::Keep, gpu);
            Pipeline<Store<LocalFiles>, Trainer<Eagle3<Cuda, F32>, NcclMember>> pipeline(
                store, scan_features(work.path() / "features"), *draft.model,
                GroupTraining<NcclRanks>::options(2), ranks.member(r, gpu));
            pipeline.run({.on_step = [&](const StepRecord& s) {
                if (r == dies && s.step == 2) throw DataError("torn in two", "test", "Mend it");
            }});
        });
        CHECK(test::is_a<DataError>(errors[static_cast<std::size_t>(dies)]));
        CHECK(test::is_a<TransportError>(errors[static_cast<std::size_t>(1 - dies)]));
        CHECK_THAT(test::text_of(errors[static_cast<std::size_t>(1 - dies)]),
                   Catch::Contains(": rank " + std::to_string(dies) + " went away"));
    }
    check_fake();
}
