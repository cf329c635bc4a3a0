// Several ranks, each on a device that has memory of its own: the exchange reaches it by the
// device's copies alone, since anything else is a fault.
#include <catch2/catch.hpp>

#include "eyas/ops/block/all.hpp"
#include "tests/collective/conformance.hpp"
#include "tests/cuda/blocks_rank.hpp"
#include "tests/cuda/group_training.hpp"

using namespace eyas;
using test::BlocksRank;

namespace {
struct BlocksGroup {
    using DeviceType = HostBlocks;
    using MemberType = Collective<BlocksRank>;
    explicit BlocksGroup(int world) : threads(world) {}
    static HostBlocks device(int) { return HostBlocks(); }
    MemberType member(int rank, const HostBlocks& device) {
        return MemberType(threads, rank, device);
    }
    test::ThreadGroup threads;
};
}  // namespace

TEST_CASE("shards in the memory of devices are those of the host's") {
    for (const int world : {1, 2, 3}) {
        BlocksGroup group(world);
        for (const auto& e : test::on_ranks(world, [&](int rank) {
                 const HostBlocks device;
                 auto member = group.member(rank, device);
                 conformance::check_device_shards(member, device, 10'000);
                 member.barrier();
             }))
            CHECK(test::text_of(e) == "");
    }
}

TEST_CASE("ranks on devices of their own agree, and with one rank but for rounding") {
    const test::RunDirectory work("blocks-ranks");
    test::write_features(work.path() / "features", test::GroupTraining<BlocksGroup>::samples,
                         DType::F32);
    test::check_ranks_agree<BlocksGroup>(work.path() / "features");
}

TEMPLATE_TEST_CASE("ranks on devices of their own stop, and another number of them goes on", "",
                   F32, Bf16) {
    const test::RunDirectory work("blocks-ranks-resume");
    test::write_features(work.path() / "features", test::GroupTraining<BlocksGroup>::samples,
                         DType::F32);
    test::check_ranks_resume<BlocksGroup, TestType>(work.path(), work.path() / "features");
}

TEST_CASE("ranks whose group does not reach their device's memory are refused") {
    test::ThreadGroup group(2);
    const auto refused = [](const std::vector<std::string>& errors) {
        for (const auto& e : errors) {
            CHECK_THAT(e, Catch::Contains("memory of its own") && Catch::Contains("2 ranks"));
            CHECK_THAT(e, Catch::Contains("train in one process"));
        }
    };
    refused(test::on_both([&](int r) {
        test::TinyDraft<F32, HostBlocks> draft;
        Trainer<Eagle3<HostBlocks, F32>, test::ThreadMember>(*draft.model, TrainerOptions(),
                                                             test::ThreadMember(group, r));
    }));
    // It reaches that of another.
    refused(test::on_both([&](int r) {
        test::TinyDraft<F32, HostBlocks> draft;
        Trainer<Eagle3<HostBlocks, F32>, Collective<BlocksRank>>(
            *draft.model, TrainerOptions(), Collective<BlocksRank>(group, r, HostBlocks()));
    }));
    test::on_both([&](int r) {
        test::ThreadMember member(group, r);
        const HostBlocks device;
        Tensor t(DType::F32, Shape{4}, device.memory());
        const std::vector<std::size_t> counts{2, 2};
        CHECK_FALSE(member.reaches(device));
        CHECK(member.reaches(Cpu()));
        CHECK_THROWS_AS(member.reduce_scatter(t.as<float>(), counts, mark_of(device)),
                        ContractError);
        CHECK_THROWS_AS(member.all_gather(t.as<float>(), counts, mark_of(device)), ContractError);
    });
}
