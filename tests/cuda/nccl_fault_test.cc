// Collective<Nccl> over a CUDA and a NCCL of the host, when a call fails or a rank does not come.
#include <nccl.h>

#include <catch2/catch.hpp>
#include <future>
#include <set>

#include "tests/cuda/nccl_ranks.hpp"

using namespace eyas;
using test::is_a;
using test::NcclMember;
using test::NcclRanks;
using test::text_of;
using Told = std::vector<std::string>;
using namespace std::chrono_literals;

namespace {

/// One of each call, in the host's memory and in the GPU's.
void use(NcclMember& group, const Cuda& gpu) {
    std::vector<double> v(3, 1);
    group.all_reduce(std::span(v));
    Tensor t(DType::F32, Shape{64}, gpu.memory());
    gpu.zero(t.as<float>().data(), 256);
    const std::vector<std::size_t> counts(2, 32);
    group.reduce_scatter(t.as<float>(), counts, mark_of(gpu));
    group.all_gather(t.as<float>(), counts, mark_of(gpu));
    gpu.synchronize();  // the memory is given back
}

/// What a group says that should have ended; "" where it goes on, or fails otherwise. (Catch2's
/// checks are for one thread at a time: what a rank's thread sees is checked after all have come.)
std::string last_words(NcclMember& group) {
    std::vector<float> v(2);
    try {
        group.all_reduce(std::span(v));
        return "";
    } catch (const TransportError& e) {
        return e.what();
    } catch (const std::exception&) {
        return "";
    }
}

/// What two ranks say when the nth of a call fails with `status`.
Told with_failure(const std::string& call, int nth, int status) {
    Told said(2), last{"no group", "no group"};
    {
        const NcclRanks ranks(2, 500ms);
        const Cuda first(0), second(1);
        fake_cuda::reset();
        fake_cuda::fail(call, nth, status);
        const auto errors = test::on_ranks(2, [&](int rank) {
            const Cuda gpu(rank);
            auto group = ranks.member(rank, gpu);
            try {
                use(group, gpu);
            } catch (const Error&) {
                // Whatever failed, the group has ended.
                last[static_cast<std::size_t>(rank)] = last_words(group);
                throw;
            }
        });
        INFO(call << " " << nth);
        CHECK(fake_cuda::failed());
        fake_cuda::reset();
        for (std::size_t r = 0; r < 2; ++r) {
            said[r] = text_of(errors[r]);
            CHECK(last[r] != "");
            CHECK(
                (!errors[r] || is_a<TransportError>(errors[r]) || is_a<ResourceError>(errors[r])));
        }
    }
    return said;
}
}  // namespace

TEST_CASE("each call of NCCL and of CUDA that fails is an error that names it") {
    fake_cuda::reset();
    {
        const NcclRanks ranks(2);
        for (const auto& e :
             ranks.run([](int, NcclMember&group, const Cuda&gpu) { use(group, gpu); }))
            CHECK(text_of(e) == "");
    }
    // Of the device's making, which comes before; of a group that goes, which says nothing, and
    // cudaGetLastError, which also forgets an error that was told (a launch's has its own name).
    const std::set<std::string> others{
        "cudaGetDeviceCount",      "cudaGetDevice",   "cudaDeviceGetDefaultMemPool",
        "cudaMemPoolSetAttribute", "cudaMemsetAsync", "cudaStreamSynchronize"},
        quiet{"cudaStreamDestroy", "cudaEventDestroy", "cudaFreeAsync",   "cudaStreamQuery",
              "ncclCommFinalize",  "ncclCommDestroy",  "cudaGetLastError"};
    std::set<std::string> tried;
    for (const auto& call : fake_cuda::called()) {
        if (others.contains(call) || call.starts_with("cublas")) continue;
        tried.insert(call);
        const bool nccl = call.starts_with("nccl");
        const int status =
            nccl ? static_cast<int>(ncclSystemError) : static_cast<int>(cudaErrorMemoryAllocation);
        for (const int nth : {1, 2}) {
            if (nth == 2 && call == "ncclGetUniqueId") continue;  // rank 0 alone calls it
            const auto said = with_failure(call, nth, status);
            INFO(call << " " << nth << "\n" << said[0] << "\n" << said[1]);
            // A fault of a kernel is told by whoever asks next.
            const std::string word = call == "kernel launch" ? "launch of a sum" : call;
            const bool named =
                said[0].find(word) != said[0].npos || said[1].find(word) != said[1].npos;
            const bool told = said[0] != "" || said[1] != "";
            CHECK((quiet.contains(call) || (call == "kernel" ? told : named)));
            if (nccl && !quiet.contains(call)) {
                const auto& one = said[0].find("system error") != said[0].npos ? said[0] : said[1];
                CHECK_THAT(one, Catch::Contains("system error (the fake's last words)") &&
                                    Catch::Contains("NCCL_SOCKET_IFNAME"));
            }
        }
    }
    for (const char* call : {"ncclGetUniqueId",
                             "ncclCommInitRankConfig",
                             "ncclCommGetAsyncError",
                             "ncclGroupStart",
                             "ncclSend",
                             "ncclRecv",
                             "ncclGroupEnd",
                             "ncclCommFinalize",
                             "ncclCommDestroy",
                             "cudaStreamCreateWithFlags",
                             "cudaSetDevice",
                             "cudaMallocAsync",
                             "cudaMemcpyAsync",
                             "cudaEventCreateWithFlags",
                             "cudaEventRecord",
                             "cudaEventQuery",
                             "cudaStreamWaitEvent",
                             "cudaGetLastError",
                             "kernel launch",
                             "kernel"})
        CHECK(tried.contains(call));
    CHECK(fake_cuda::failures() == Told());
}

TEST_CASE("a rank that does not come, or not to NCCL, is told after the time-out") {
    const NcclRanks ranks(3, 500ms);
    SECTION("to the meeting") {
        const auto errors = test::on_ranks(3, [&](int rank) {
            if (rank == 1) return;
            const Cuda gpu(rank);
            ranks.member(rank, gpu);
        });
        CHECK_THAT(text_of(errors[0]), Catch::Contains("rank 1 did not come within 500 ms"));
        CHECK(is_a<TransportError>(errors[2]));
    }
    SECTION("to NCCL") {
        fake_cuda::fail("ncclCommInitRankConfig", 1, ncclSystemError);
        const auto errors = ranks.run([](int, NcclMember&, const Cuda&) {});
        fake_cuda::reset();
        int own = 0;
        for (int r = 0; r < 3; ++r) {
            const auto text = text_of(errors[static_cast<std::size_t>(r)]);
            CHECK(is_a<TransportError>(errors[static_cast<std::size_t>(r)]));
            const auto where =
                "rank " + std::to_string(r) + " of 3, joining the group, ncclCommInitRankConfig: ";
            own += text.starts_with(where + "system error");
            CHECK((text.starts_with(where + "system error") || text.starts_with(where + "rank ")));
            CHECK_THAT(text, Catch::Contains("system error"));  // the others know, too
        }
        CHECK(own == 1);
    }
    SECTION("because rank 0 has no id") {
        fake_cuda::fail("ncclGetUniqueId", 1, ncclInternalError);
        const auto errors = ranks.run([](int, NcclMember&, const Cuda&) {});
        fake_cuda::reset();
        CHECK_THAT(text_of(errors[0]), Catch::Contains("ncclGetUniqueId: internal error"));
        for (const int r : {1, 2})
            CHECK_THAT(text_of(errors[static_cast<std::size_t>(r)]),
                       Catch::Contains("rank 0 could not begin a group"));
    }
    SECTION("because two ranks share a GPU") {
        const auto errors = test::on_ranks(2, [&](int rank) {
            const Cuda gpu(0);
            NcclMember(Rendezvous{rank, 2, "127.0.0.1", ranks.port, 500ms}, gpu);
        });
        CHECK_THAT(text_of(errors[0]) + text_of(errors[1]),
                   Catch::Contains("Give each rank a GPU of its own"));
    }
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("who waits for others to join can be interrupted") {
    const NcclRanks ranks(2);  // its time-out is two minutes
    const std::atomic<bool> interrupt = true;
    const Cuda gpu(0);
    Rendezvous r{0, 2, "127.0.0.1", ranks.port, ranks.timeout};
    r.interrupt = &interrupt;
    CHECK_THROWS_WITH(NcclMember(r, gpu), Catch::Contains("rank 0 was interrupted"));
}

TEST_CASE("a rank that goes ends the others in their next call, and for good") {
    for (const int dies : {0, 1, 2}) {
        const NcclRanks ranks(3);  // its time-out is two minutes
        Told last(3);
        const auto errors = ranks.run([&](int rank, NcclMember& group, const Cuda& gpu) {
            std::vector<double> v(3);
            group.all_reduce(std::span(v));
            if (rank == dies) throw DataError("torn in two", "test", "Mend it");
            Tensor t(DType::F32, Shape{300}, gpu.memory());
            gpu.zero(t.as<float>().data(), 1200);
            const std::vector<std::size_t> counts(3, 100);
            try {
                group.reduce_scatter(t.as<float>(), counts, mark_of(gpu));
            } catch (const TransportError&) {
                last[static_cast<std::size_t>(rank)] = last_words(group);
                throw;
            }
        });
        for (int r = 0; r < 3; ++r) {
            const auto& e = errors[static_cast<std::size_t>(r)];
            CHECK((r == dies ? is_a<DataError>(e) : is_a<TransportError>(e)));
            if (r != dies)
                CHECK_THAT(last[static_cast<std::size_t>(r)],
                           Catch::Contains("the group has ended") && Catch::Contains("went away"));
            if (r != dies)
                CHECK_THAT(text_of(e),
                           Catch::Contains("rank " + std::to_string(r) +
                                           " of 3, reduce_scatter of 1200 bytes") &&
                               Catch::Contains(": rank " + std::to_string(dies) + " went away"));
        }
    }
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("the others are told before NCCL's abort, which may wait for theirs") {
    fake_nccl::aborts_together(true);
    for (const bool in_a_call : {true, false}) {
        const NcclRanks ranks(3);  // its time-out is two minutes
        const auto errors = ranks.run([&](int rank, NcclMember& group, const Cuda&) {
            if (rank == 1 && !in_a_call) throw DataError("torn in two", "test", "Mend it");
            if (rank == 1) fake_cuda::fail("cudaMemcpyAsync", 1, cudaErrorInvalidValue);
            std::vector<double> v(3);
            if (rank == 1)
                group.all_reduce(std::span(v));
            else
                group.barrier();
        });
        fake_cuda::reset();
        CHECK((in_a_call ? is_a<ResourceError>(errors[1]) : is_a<DataError>(errors[1])));
        for (const std::size_t r : {0u, 2u})
            CHECK_THAT(text_of(errors[r]),
                       Catch::Contains(in_a_call ? "rank 1 failed (" : "rank 1 went away"));
    }
    fake_nccl::aborts_together(false);
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("a rank that lives and does not come to a call ends the others at the time-out") {
    for (const int silent : {0, 1, 2}) {
        const NcclRanks ranks(3, 500ms);
        std::promise<void> told[3];
        const auto errors = ranks.run([&](int rank, NcclMember& group, const Cuda&) {
            const auto mine = static_cast<std::size_t>(rank);
            if (rank == silent) {
                for (const auto other : {0, 1, 2})
                    if (other != silent) told[other].get_future().wait();
                return;
            }
            try {
                group.barrier();
            } catch (const Error&) {
                told[mine].set_value();
                throw;
            }
        });
        std::string all;
        for (int r = 0; r < 3; ++r)
            if (r != silent) {
                const auto& e = errors[static_cast<std::size_t>(r)];
                CHECK(is_a<TransportError>(e));
                all += text_of(e);
            }
        CHECK_THAT(all,
                   Catch::Contains("another rank was silent for 500 ms. Check that all ranks"));
    }
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("a GPU that is late with its own work is not taken for a silent rank") {
    const NcclRanks ranks(2);
    std::atomic<bool> late = true;
    const auto errors = test::on_ranks(2, [&](int rank) {
        const Cuda gpu(rank);
        Tensor t(DType::F32, Shape{64}, gpu.memory());
        gpu.zero(t.as<float>().data(), 256);
        const auto own = detail::make_stream();
        if (rank == 0)
            fake_cuda::enqueue_when(
                own.get(), "work that takes long", [&] { return !late; }, [] {});
        const CudaMark mark(own.get());
        // Rank 1 hears of it from rank 0 alone.
        NcclMember group(
            Rendezvous{rank, 2, "127.0.0.1", ranks.port, rank == 0 ? 500ms : ranks.timeout}, gpu);
        try {
            group.reduce_scatter(t.as<float>(), std::vector<std::size_t>(2, 32), mark);
        } catch (const Error&) {
            if (rank == 1) late = false;
            throw;
        }
    });
    for (const auto& e : errors) {
        CHECK(is_a<TransportError>(e));
        CHECK_THAT(text_of(e), Catch::Contains("this rank's GPU was not done with its own work "
                                               "after 500 ms"));
    }
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("a call may take longer than the time-out, as long as it makes progress") {
    fake_nccl::takes(1200ms);  // each of an all_reduce's two exchanges
    const NcclRanks ranks(2, 2s);
    std::vector<std::vector<double>> sums(2, std::vector<double>(3, 1));
    for (const auto& e : ranks.run([&](int rank, NcclMember&group, const Cuda&) {
             group.all_reduce(std::span(sums[static_cast<std::size_t>(rank)]));
         }))
        CHECK(text_of(e) == "");
    CHECK(sums == std::vector(2, std::vector<double>(3, 2)));
    fake_nccl::takes(0ms);
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("what NCCL notices of a broken network is told at once") {
    const NcclRanks ranks(2);  // its time-out is two minutes
    const auto errors = ranks.run([](int rank, NcclMember& group, const Cuda&) {
        std::vector<double> v(3);
        group.all_reduce(std::span(v));
        if (rank == 1) fake_nccl::broken(true);
        group.all_reduce(std::span(v));
    });
    fake_nccl::broken(false);
    for (const auto& e : errors) {
        CHECK(is_a<TransportError>(e));
        CHECK_THAT(text_of(e), Catch::Contains("remote error") &&
                                   Catch::Contains("See what the other ranks said last"));
    }
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("an abort that fails is told besides") {
    fake_cuda::fail("ncclCommAbort", 1, ncclInternalError);
    const NcclRanks ranks(2, 500ms);
    const auto errors = test::on_ranks(2, [&](int rank) {
        const Cuda gpu(rank);
        // Rank 1 does not come to the barrier, and does not give up before rank 0 does.
        NcclMember group(Rendezvous{rank, 2, "127.0.0.1", ranks.port, rank == 0 ? 500ms : 60s},
                         gpu);
        if (rank == 0) group.barrier();
    });
    CHECK_THAT(text_of(errors[0]), Catch::Contains("silent for 500 ms") &&
                                       Catch::Contains("Besides, ncclCommAbort: internal error"));
    fake_cuda::reset();
}
