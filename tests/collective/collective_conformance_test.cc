#include <catch2/catch.hpp>

#include "tests/collective/conformance.hpp"
#include "tests/collective/thread_group.hpp"

using namespace eyas;

TEST_CASE("shards in a group of one are all there is") {
    Collective<Solo> solo;
    conformance::check_shards(solo, 10'000);
    conformance::check_wrong_shards(solo);
}

TEST_CASE("shards among threads, the group that other tests use") {
    for (const int world : {1, 2, 3, 4}) {
        test::ThreadGroup group(world);
        const auto errors = test::on_ranks(world, [&](int rank) {
            test::ThreadMember member(group, rank);
            conformance::check_shards(member, 10'000);
            conformance::check_wrong_shards(member);
            member.barrier();  // nobody leaves before
        });
        for (const auto& e : errors) CHECK(test::text_of(e) == "");
    }
}

TEST_CASE("a thread that leaves ends the others' calls") {
    test::ThreadGroup group(3);
    const auto errors = test::on_ranks(3, [&](int rank) {
        test::ThreadMember member(group, rank);
        std::vector<float> v(4);
        if (rank != 1) member.all_reduce(std::span(v));
    });
    for (const int rank : {0, 2})
        CHECK(test::is_a<TransportError>(errors[static_cast<std::size_t>(rank)]));
}
