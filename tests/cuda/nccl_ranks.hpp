#pragma once
#include <chrono>
#include <cstdint>
#include <exception>
#include <vector>

#include "eyas/collective/collective.hpp"
#include "eyas/collective/nccl.cuh"
#include "fake_cuda.hpp"
#include "fake_nccl.hpp"
#include "tests/collective/free_port.hpp"
#include "tests/collective/thread_group.hpp"

namespace eyas::test {

using NcclMember = Collective<Nccl>;

/// Ranks that are threads of this process, each with a GPU of the fake's.
struct NcclRanks {
    using DeviceType = Cuda;
    using MemberType = NcclMember;

    explicit NcclRanks(int n, std::chrono::milliseconds limit = std::chrono::minutes(2))
        : world(n), timeout(limit), port(free_port()) {
        fake_cuda::devices(n);
    }
    static Cuda device(int rank) { return Cuda(rank); }
    NcclMember member(int rank, const Cuda& gpu) const {
        return NcclMember(Rendezvous{rank, world, "127.0.0.1", port, timeout}, gpu);
    }
    /// f(rank, member, device) of each; what each threw.
    template <class F>
    std::vector<std::exception_ptr> run(F f) const {
        return on_ranks(world, [&](int rank) {
            const Cuda gpu = device(rank);
            auto group = member(rank, gpu);
            f(rank, group, gpu);
        });
    }

    int world;
    std::chrono::milliseconds timeout;
    std::uint16_t port;
};

}  // namespace eyas::test
