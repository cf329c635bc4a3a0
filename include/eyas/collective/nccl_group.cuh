#pragma once
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "eyas/collective/life_line.hpp"
#include "eyas/collective/meeting.hpp"
#include "eyas/collective/nccl_error.cuh"
#include "eyas/device/cuda_context.cuh"
#include "eyas/device/cuda_mark.cuh"

namespace eyas::detail {

static_assert(NCCL_VERSION_CODE >= NCCL_VERSION(2, 18, 1),
              "NCCL 2.18.1 or newer is needed, whose calls can all be waited for with a limit");

/// A communicator of NCCL whose every wait ends at a limit, and soon after a rank went (NCCL itself
/// lets ranks of one machine wait for ever), with a stream and memory of its own on one GPU. One
/// thread at a time uses it, not always the same. The first error ends it for good.
class NcclGroup {
public:
    /// Returns when all ranks have met and NCCL has connected them. Errors as Meeting's;
    /// TransportError for NCCL's, ResourceError for CUDA's.
    NcclGroup(const Rendezvous& r, int ordinal)
        : rank_(r.rank),
          world_(r.world),
          ordinal_(ordinal),
          timeout_(r.timeout),
          where_("rank " + std::to_string(r.rank) + " of " + std::to_string(r.world)) {
        use_gpu();
        stream_ = make_stream();
        memory_ = std::make_unique<CudaMemory>(ordinal, stream());
        run("joining the group", [&] { join(r); });
    }
    NcclGroup(const NcclGroup&) = delete;
    NcclGroup& operator=(const NcclGroup&) = delete;
    /// Takes leave of the others, unless the group has ended already; where it goes by an error of
    /// its own rank it does not wait for them.
    ~NcclGroup() {
        if (!comm_) return;
        auto line = std::move(life_line_);  // ends when this has left; others may go before
        const bool fails = std::uncaught_exceptions() > 0;
        try {
            if (fails) line = LifeLine();  // tells the others, for whom NCCL may wait
            use_gpu();
            if (fails) {
                abort();
                return;
            }
            doing_ = "leaving the group";
            timeout_ = std::min(timeout_, most_farewell);
            check_nccl(ncclCommFinalize(comm_), at("ncclCommFinalize"), comm_);
            wait_until("ncclCommFinalize", [this] { return is_ready("ncclCommFinalize"); });
            ignored(ncclCommDestroy(std::exchange(comm_, nullptr)));
        } catch (const Error&) {  // somebody left earlier, or never comes
            line = LifeLine();
            abort();
        }
    }

    /// Calls f, which makes one collective call of the trainer; `doing` says which. After any error
    /// the communicator is gone, and nothing of it touches memory any more.
    template <class F>
    void run(const std::string& doing, F&& f) {
        doing_ = doing;
        if (!ended_.empty())
            throw TransportError("the group has ended: " + ended_, at("no call"),
                                 "Start all ranks again");
        try {
            use_gpu();
            f();
        } catch (Error& e) {
            if (const auto besides = end(e.what()); !besides.empty()) e.add(besides);
            throw;
        } catch (const std::exception& e) {
            end(e.what());
            throw;
        }
    }

    /// Sends and receives that f posts, as one; afterwards the stream has them.
    template <class F>
    void together(F&& f) {
        check_nccl(ncclGroupStart(), at("ncclGroupStart"), comm_);
        std::exception_ptr failure;
        try {
            f();
        } catch (...) {  // a group that was begun is ended all the same
            failure = std::current_exception();
        }
        const auto status = ncclGroupEnd();
        if (failure) std::rethrow_exception(failure);
        check_nccl(status, at("ncclGroupEnd"), comm_);
        wait_until("ncclGroupEnd", [this] { return is_ready("ncclGroupEnd"); });
        stages_.push_back({CudaMark(stream()), Whose::Others});
    }
    /// Within together(), in the GPU's memory.
    void send(int peer, std::span<const std::byte> bytes) {
        if (bytes.empty()) return;
        check_nccl(ncclSend(bytes.data(), bytes.size(), ncclUint8, peer, comm_, stream()),
                   at("ncclSend"), comm_);
    }
    void receive(int peer, std::span<std::byte> into) {
        if (into.empty()) return;
        check_nccl(ncclRecv(into.data(), into.size(), ncclUint8, peer, comm_, stream()),
                   at("ncclRecv"), comm_);
    }

    /// What the stream is given from now on begins after the work that is marked.
    void hold_back(const CudaMark& after) {
        after.hold_back(stream());
        stages_.push_back({after, Whose::Own});
    }
    /// Returns when the stream's work is done. The time-out is each stage's: that of what the GPU
    /// did before, and of each group of sends and receives.
    void wait() {
        stages_.push_back({CudaMark(stream()), Whose::Own});
        for (const auto& stage : std::exchange(stages_, {}))
            wait_until(
                "waiting for the GPU",
                [&] {
                    if (stage.end.is_done()) return true;
                    is_ready("ncclCommGetAsyncError");
                    return false;
                },
                stage.work);
    }

    template <class F>
    void for_each_peer(F&& f) const {
        for (int p = 0; p < world_; ++p)
            if (p != rank_) f(p);
    }
    cudaStream_t stream() const { return stream_.get(); }
    CudaMemory& memory() { return *memory_; }

private:
    static constexpr std::chrono::milliseconds most_farewell{5'000};

    /// Who has to do something so that a wait ends.
    enum class Whose { Own, Others };
    struct Stage {
        CudaMark end;
        Whose work;
    };

    void use_gpu() const { CudaContext::make_current(ordinal_); }
    std::string at(const char* call) const { return where_ + ", " + doing_ + ", " + call; }

    void join(const Rendezvous& r) {
        const auto id = agreed_id(r);
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        check_nccl(ncclCommInitRankConfig(&comm_, world_, id, rank_, &config),
                   at("ncclCommInitRankConfig"), comm_);
        wait_until("ncclCommInitRankConfig", [&] {
            if (r.interrupt && *r.interrupt)
                throw TransportError("interrupted before all had joined",
                                     at("ncclCommInitRankConfig"), "Start all ranks again");
            return is_ready("ncclCommInitRankConfig");
        });
    }

    /// Rank 0's, on all ranks. Where it has none, it meets the others all the same.
    ncclUniqueId agreed_id(const Rendezvous& r) {
        ncclUniqueId id{};
        std::vector<std::string> brought(static_cast<std::size_t>(world_));
        std::exception_ptr failure;
        try {
            if (rank_ == 0) {
                check_nccl(ncclGetUniqueId(&id), at("ncclGetUniqueId"));
                for (auto& b : brought) b.assign(id.internal, sizeof id.internal);
            }
        } catch (const TransportError&) {
            failure = std::current_exception();
        }
        Meeting meeting(r, Limit::within(timeout_, r.interrupt));
        const auto got = meeting.exchange(std::move(brought));
        life_line_ = LifeLine(meeting.take_links());
        if (failure) std::rethrow_exception(failure);
        if (got[0].size() != sizeof id.internal)
            throw TransportError("rank 0 could not begin a group", at("ncclGetUniqueId"),
                                 "See its message");
        std::memcpy(id.internal, got[0].data(), sizeof id.internal);
        return id;
    }

    /// Whether what was asked of the communicator is under way no more. Throws where it failed.
    bool is_ready(const char* call) const {
        ncclResult_t state = ncclSuccess;
        check_nccl(ncclCommGetAsyncError(comm_, &state), at("ncclCommGetAsyncError"), comm_);
        check_nccl(state, at(call), comm_);
        return state != ncclInProgress;
    }

    /// Throws TransportError where `ended()` does not come true within the time-out, or when a rank
    /// has gone and it does not for that.
    template <class F>
    void wait_until(const char* call, F&& ended, Whose work = Whose::Others) {
        const auto begin = std::chrono::steady_clock::now();
        for (int sleeps = 0; !ended();) {
            const auto waited = std::chrono::steady_clock::now() - begin;
            if (waited >= timeout_) throw_late(call, work);
            if (waited < std::chrono::milliseconds(2)) {
                std::this_thread::yield();
                continue;
            }
            std::this_thread::sleep_for(std::chrono::microseconds(100));
            if (++sleeps % 32 != 0 || life_line_.loss().empty()) continue;
            if (ended()) return;  // it may have left since, when all was done
            lost_ = life_line_.loss();
            throw TransportError(lost_, at(call),
                                 "See what that rank said last; then start all ranks again");
        }
    }
    [[noreturn]] void throw_late(const char* call, Whose work) const {
        const auto limit = std::to_string(timeout_.count()) + " ms";
        if (work == Whose::Own)
            throw TransportError("this rank's GPU was not done with its own work after " + limit,
                                 at(call), "See what else the GPU does, or raise the time-out");
        throw TransportError(
            "another rank was silent for " + limit, at(call),
            "Check that all ranks run and make the same calls, or raise the time-out");
    }

    /// The first error ends the group: the others hear of it, then NCCL, whose abort may wait until
    /// they abort, too. Returns what went wrong with that, or nothing.
    std::string end(const std::string& why) {
        ended_ = why;
        stages_.clear();
        life_line_.cut(lost_.empty() ? "rank " + std::to_string(rank_) + " failed (" + why + ")"
                                     : lost_);
        return abort();
    }

    /// Ends what is under way on the GPU and gives the communicator up. Returns what went wrong
    /// with that, or nothing.
    std::string abort() noexcept {
        if (!comm_) return "";
        const auto status = ncclCommAbort(std::exchange(comm_, nullptr));
        if (status != ncclSuccess && status != ncclInProgress)
            return std::string("ncclCommAbort: ") + ncclGetErrorString(status);
        if (stream_ends()) return "";
        return "ncclCommAbort did not end the work on the GPU, which may still write";
    }
    /// Whether the stream's work is over, well or not, before long.
    bool stream_ends() const noexcept {
        const auto until = std::chrono::steady_clock::now() + most_farewell;
        for (;;) {
            const auto status = cudaStreamQuery(stream());
            ignored(status);
            if (status != cudaErrorNotReady) return true;
            if (std::chrono::steady_clock::now() >= until) return false;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    }

    int rank_, world_, ordinal_;
    std::chrono::milliseconds timeout_;
    std::string where_, doing_;
    std::string ended_, lost_;  // why, once it has; which rank went, where that is why
    LifeLine life_line_;
    OwnedStream stream_;
    std::vector<Stage> stages_;           // of the call, not waited for yet
    std::unique_ptr<CudaMemory> memory_;  // on the stream
    ncclComm_t comm_ = nullptr;
};

}  // namespace eyas::detail
