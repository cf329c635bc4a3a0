// The functions of NCCL that eyas calls; fake_nccl.hpp says what they do here.
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fake_cuda.hpp"
#include "fake_nccl.hpp"
#include "nccl_mailbox.hpp"

namespace fake = eyas::fake_cuda;
using eyas::fake_nccl::Mailbox;

namespace {

/// A send or a receive between this rank and `peer`.
struct Transfer {
    bool is_send;
    int peer;
    std::byte* data;
    std::size_t bytes;
    ncclDataType_t type;
    std::uint64_t number = 0;                  // between processes, of those of this rank and peer
    bool taken = false;                        // of a send
    std::shared_ptr<Transfer> from = nullptr;  // of a receive, once its send is there
};
struct Batch {
    cudaStream_t stream;
    std::vector<std::shared_ptr<Transfer>> transfers;
    bool posted = false;
    std::optional<std::chrono::steady_clock::time_point> met = {};
};

/// All communicators that were made of one id.
struct Group {
    int world = 0;
    std::map<int, int> devices;  // of the ranks that have come
    std::map<std::pair<int, int>, std::deque<std::shared_ptr<Transfer>>> sends;  // from, to
    int finalized = 0;
    // Of ranks that are processes instead:
    std::optional<eyas::fake_nccl::Mailbox> mail;
    std::map<std::pair<int, int>, std::uint64_t> mailed;  // from, to

    int have_joined() const { return mail ? mail->joined() : static_cast<int>(devices.size()); }
    int have_finalized() const { return mail ? mail->finalized() : finalized; }
    void finalize(int rank) {
        ++finalized;
        if (mail) mail->finalize(rank, world);
    }
    /// False where another rank has this number or this GPU.
    bool join(int rank, int device) {
        for (const auto& [r, d] : devices)
            if (r == rank || d == device) return false;
        devices[rank] = device;
        return !mail || mail->join(rank, name_of(device));
    }

private:
    /// Which of the machine's GPUs a process means.
    static std::string name_of(int device) {
        const char* shown = std::getenv("CUDA_VISIBLE_DEVICES");
        std::istringstream all(shown ? shown : "");
        std::string name;
        for (int i = 0; i <= device; ++i)
            if (!std::getline(all, name, ',')) return std::to_string(device);
        return name;
    }
};

struct Rank {
    std::shared_ptr<Group> group;
    int rank = 0, device = 0;
    enum class Doing { Joining, Nothing, Batches, Finalizing } doing = Doing::Joining;
    bool gone = false, finalizes = false, finalized = false;
    ncclResult_t broken = ncclSuccess;
    int asked = 0;                                     // while something is under way
    std::vector<std::shared_ptr<Batch>> batches = {};  // not in their streams yet
};

std::mutex mutex;  // guards all; never held while CUDA's fake is called with work to do
std::map<std::string, std::shared_ptr<Group>> groups;
std::map<ncclComm_t, std::shared_ptr<Rank>> ranks;
bool network_broken = false, together = false;
std::chrono::milliseconds transfer_time{0};
constexpr int asked_before_ready = 2;

thread_local int depth = 0;  // of groups
thread_local std::map<ncclComm_t, std::shared_ptr<Batch>> gathered;

/// What the call shall return at once: faults of CUDA's come as NCCL tells them.
ncclResult_t enter(const char* call) {
    const int planned = fake::enter(call);
    return planned >= 0 && planned < ncclNumResults ? static_cast<ncclResult_t>(planned)
                                                    : ncclUnhandledCudaError;
}
#define EYAS_FAKE_ENTER(call) \
    if (const auto planned = enter(call); planned != ncclSuccess) return planned

ncclResult_t refused(const char* call, const std::string& why) {
    fake::misuse(std::string(call) + ": " + why);
    return ncclInvalidUsage;
}

std::shared_ptr<Rank> rank_of(ncclComm_t comm, const char* call) {
    if (!fake::known_handle("communicator", comm, call)) return nullptr;
    const std::lock_guard lock(mutex);
    return ranks[comm];
}

std::size_t size_of(ncclDataType_t type) {
    switch (type) {
        case ncclInt8:
        case ncclUint8:
            return 1;
        case ncclBfloat16:
            return 2;
        case ncclFloat32:
            return 4;
        case ncclFloat64:
            return 8;
        default:
            return 0;
    }
}

/// Posts this rank's sends, once, and finds the peers' for what it receives; whether all are there.
/// With the mutex.
bool have_met(Rank& me, Batch& batch) {
    if (me.gone || me.broken != ncclSuccess) return true;
    auto& sends = me.group->sends;
    if (!std::exchange(batch.posted, true))
        for (const auto& t : batch.transfers)
            if (t->is_send) sends[{me.rank, t->peer}].push_back(t);
    bool all = true;
    for (const auto& t : batch.transfers) {
        if (t->is_send || t->from) continue;
        auto& queue = sends[{t->peer, me.rank}];
        all = all && !queue.empty();
        if (queue.empty()) continue;
        t->from = queue.front();
        queue.pop_front();
    }
    const auto now = std::chrono::steady_clock::now();
    if (all && !batch.met) batch.met = now;
    return all && now - *batch.met >= transfer_time;
}

/// Whether a receive fits what was sent. With the mutex.
bool fits(Rank& me, const Transfer& t, std::size_t bytes, std::uint64_t type) {
    if (bytes == t.bytes && type == static_cast<std::uint64_t>(t.type)) return true;
    me.broken = ncclInternalError;
    fake::misuse("rank " + std::to_string(t.peer) + " sends " + std::to_string(bytes) +
                 " bytes of type " + std::to_string(type) + ", rank " + std::to_string(me.rank) +
                 " receives " + std::to_string(t.bytes) + " of type " + std::to_string(t.type));
    return false;
}

/// Fills what this rank receives. With the mutex.
void receive(Rank& me, Batch& batch) {
    if (me.gone || me.broken != ncclSuccess) return;
    for (const auto& t : batch.transfers) {
        if (t->is_send) continue;
        const auto& from = *t->from;
        if (fits(me, *t, from.bytes, static_cast<std::uint64_t>(from.type)) &&
            fake::device_range("ncclSend", from.data, from.bytes) &&
            fake::device_range("ncclRecv", t->data, t->bytes))
            std::memcpy(t->data, from.data, t->bytes);
        t->from->taken = true;
    }
}

/// With the mutex.
bool all_taken(const Rank& me, const Batch& batch) {
    return me.gone || me.broken != ncclSuccess ||
           std::ranges::all_of(batch.transfers,
                               [](const auto& t) { return !t->is_send || t->taken; });
}

template <class F>
auto locked(F f) {
    return [f] {
        const std::lock_guard lock(mutex);
        return f();
    };
}

/// What follows is of ranks that are processes. With the mutex.
void mail(const Rank& me, const Batch& batch) {
    if (me.gone || me.broken != ncclSuccess) return;
    for (const auto& t : batch.transfers)
        if (t->is_send && fake::device_range("ncclSend", t->data, t->bytes))
            me.group->mail->post(me.rank, t->peer, t->number, static_cast<std::uint64_t>(t->type),
                                 {t->data, t->bytes});
}
bool has_mail(const Rank& me, const Batch& batch) {
    return me.gone || me.broken != ncclSuccess ||
           std::ranges::all_of(batch.transfers, [&](const auto& t) {
               return t->is_send || me.group->mail->look(t->peer, me.rank, t->number);
           });
}
void take_mail(Rank& me, const Batch& batch) {
    for (const auto& t : batch.transfers) {
        if (t->is_send || me.gone || me.broken != ncclSuccess) continue;
        const auto& box = *me.group->mail;
        const auto sent = box.look(t->peer, me.rank, t->number);
        if (fits(me, *t, sent->bytes, sent->type) &&
            fake::device_range("ncclRecv", t->data, t->bytes))
            box.take(t->peer, me.rank, t->number, {t->data, t->bytes});
    }
}
bool mail_was_taken(const Rank& me, const Batch& batch) {
    return me.gone || me.broken != ncclSuccess ||
           std::ranges::none_of(batch.transfers, [&](const auto& t) {
               return t->is_send && me.group->mail->look(me.rank, t->peer, t->number);
           });
}

/// Into the batch's stream, when it is its turn.
void enqueue(const std::shared_ptr<Rank>& me, const std::shared_ptr<Batch>& batch) {
    if (me->group->mail) {
        for (const auto& t : batch->transfers)
            t->number = me->group->mailed[t->is_send ? std::pair(me->rank, t->peer)
                                                     : std::pair(t->peer, me->rank)]++;
        fake::enqueue(batch->stream, "NCCL's sends", locked([=] { mail(*me, *batch); }));
        fake::enqueue_when(batch->stream, "NCCL's receives",
                           locked([=] { return has_mail(*me, *batch); }),
                           locked([=] { take_mail(*me, *batch); }));
        fake::enqueue_when(batch->stream, "NCCL's sends",
                           locked([=] { return mail_was_taken(*me, *batch); }), [] {});
        return;
    }
    fake::enqueue_when(batch->stream, "NCCL's receives",
                       locked([=] { return have_met(*me, *batch); }),
                       locked([=] { receive(*me, *batch); }));
    fake::enqueue_when(batch->stream, "NCCL's sends",
                       locked([=] { return all_taken(*me, *batch); }), [] {});
}

/// Whether what is under way has ended; batches go to their streams then. With the mutex.
bool is_ready(Rank& me, std::vector<std::shared_ptr<Batch>>& to_stream) {
    if (me.doing == Rank::Doing::Nothing) return true;
    if (++me.asked <= asked_before_ready) return false;
    auto& group = *me.group;
    if (me.doing == Rank::Doing::Joining && group.have_joined() < group.world) return false;
    if (me.doing == Rank::Doing::Finalizing && group.have_finalized() < group.world) return false;
    me.finalized = me.doing == Rank::Doing::Finalizing;
    to_stream = std::exchange(me.batches, {});
    me.doing = Rank::Doing::Nothing;
    me.asked = 0;
    return true;
}

ncclResult_t add(const char* call, bool is_send, const void* data, std::size_t count,
                 ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
    EYAS_FAKE_ENTER(call);
    const auto me = rank_of(comm, call);
    if (!me) return ncclInvalidArgument;
    if (depth == 0) return refused(call, "outside of a group: it would wait for its peer alone");
    if (me->doing != Rank::Doing::Nothing) return refused(call, "something else is under way");
    if (peer < 0 || peer >= me->group->world || peer == me->rank)
        return refused(call, "rank " + std::to_string(peer) + " is no peer");
    int device = -1;
    cudaGetDevice(&device);
    if (device != me->device) return refused(call, "another GPU is the thread's current one");
    const auto bytes = count * size_of(type);
    if (bytes == 0) return refused(call, "nothing, or a type that it does not know");
    if (!fake::device_range(call, data, bytes)) return ncclInvalidArgument;
    auto& batch = gathered[comm];
    if (!batch) batch = std::make_shared<Batch>();
    if (!batch->transfers.empty() && batch->stream != stream)
        return refused(call, "a group in two streams");
    batch->stream = stream;
    auto* at = static_cast<std::byte*>(const_cast<void*>(data));
    batch->transfers.push_back(
        std::make_shared<Transfer>(Transfer{is_send, peer, at, bytes, type}));
    return ncclSuccess;
}

/// The communicator is no more; its work ends by itself.
void forget(ncclComm_t comm, Rank& me) {
    const std::lock_guard lock(mutex);
    me.gone = true;
    if (!std::exchange(me.finalizes, true)) me.group->finalize(me.rank);
    for (auto& [ends, queue] : me.group->sends)
        if (ends.first == me.rank) queue.clear();
    ranks.erase(comm);
}

/// Until all ranks of the group have gone, or will.
void wait_for_others(const Group& group) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    const auto have_gone = [&] {
        const std::lock_guard lock(mutex);
        return !together || group.finalized >= group.world;
    };
    while (!have_gone()) {
        if (std::chrono::steady_clock::now() >= until)
            return fake::misuse("ncclCommAbort: waits for ranks that know of nothing");
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

}  // namespace

void eyas::fake_nccl::broken(bool yes) {
    const std::lock_guard lock(mutex);
    network_broken = yes;
}
void eyas::fake_nccl::takes(std::chrono::milliseconds time) {
    const std::lock_guard lock(mutex);
    transfer_time = time;
}
void eyas::fake_nccl::aborts_together(bool yes) {
    const std::lock_guard lock(mutex);
    together = yes;
}

extern "C" {

const char* ncclGetErrorString(ncclResult_t r) {
    static const char* const texts[] = {"no error",       "unhandled cuda error", "system error",
                                        "internal error", "invalid argument",     "invalid usage",
                                        "remote error",   "in progress"};
    return r >= 0 && r < ncclNumResults ? texts[r] : "unknown result";
}
const char* ncclGetLastError(ncclComm_t) { return "the fake's last words"; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    EYAS_FAKE_ENTER("ncclGetUniqueId");
    static std::atomic<int> made = 0;
    std::memset(id->internal, 0x5a, sizeof id->internal);
    const int number = ++made;
    std::memcpy(id->internal, &number, sizeof number);
    if (Mailbox::root()) {
        const auto name = Mailbox::create();
        if (name.empty()) return ncclSystemError;
        std::memset(id->internal, 0, sizeof id->internal);
        std::memcpy(id->internal, name.data(), name.size());
        return ncclSuccess;  // its group is made by each process that joins
    }
    const std::lock_guard lock(mutex);
    groups[std::string(id->internal, sizeof id->internal)] = std::make_shared<Group>();
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int world, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
    EYAS_FAKE_ENTER("ncclCommInitRankConfig");
    const char* call = "ncclCommInitRankConfig";
    if (config->magic != 0xcafebeef || config->blocking != 0)
        return refused(call, "a communicator whose calls block");
    auto me = std::make_shared<Rank>();
    {
        const std::lock_guard lock(mutex);
        if (Mailbox::root()) {
            auto& group = groups[std::string(id.internal, sizeof id.internal)];
            if (!group) group = std::make_shared<Group>();
            if (!group->mail) group->mail.emplace(id.internal);
        }
        const auto it = groups.find(std::string(id.internal, sizeof id.internal));
        if (it == groups.end()) return refused(call, "an id that nobody made");
        auto& group = *it->second;
        if (group.world == 0) group.world = world;
        cudaGetDevice(&me->device);
        if (group.world != world || rank < 0 || rank >= world)
            return refused(call, "ranks of different worlds");
        if (!group.join(rank, me->device)) return ncclInvalidUsage;  // as NCCL does
        me->group = it->second;
        me->rank = rank;
        *comm = reinterpret_cast<ncclComm_t>(me.get());
        ranks[*comm] = me;
    }
    fake::add_handle("communicator", *comm);
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
    EYAS_FAKE_ENTER("ncclCommGetAsyncError");
    const auto me = rank_of(comm, "ncclCommGetAsyncError");
    if (!me) return ncclInvalidArgument;
    std::vector<std::shared_ptr<Batch>> to_stream;
    {
        const std::lock_guard lock(mutex);
        if (network_broken) me->broken = ncclRemoteError;
        *state = me->broken;
        if (*state == ncclSuccess && !is_ready(*me, to_stream)) *state = ncclInProgress;
    }
    for (const auto& batch : to_stream) enqueue(me, batch);
    return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
    EYAS_FAKE_ENTER("ncclGroupStart");
    ++depth;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
    if (depth == 0) return refused("ncclGroupEnd", "no group was begun");
    if (--depth > 0) return ncclSuccess;
    const auto batches = std::exchange(gathered, {});
    EYAS_FAKE_ENTER("ncclGroupEnd");
    for (const auto& [comm, batch] : batches) {
        const std::lock_guard lock(mutex);
        auto& me = *ranks[comm];
        me.batches.push_back(batch);
        me.doing = Rank::Doing::Batches;
        me.asked = 0;
    }
    return batches.empty() ? ncclSuccess : ncclInProgress;
}
ncclResult_t ncclSend(const void* data, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
    return add("ncclSend", true, data, count, type, peer, comm, stream);
}
ncclResult_t ncclRecv(void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return add("ncclRecv", false, data, count, type, peer, comm, stream);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    EYAS_FAKE_ENTER("ncclCommFinalize");
    const auto me = rank_of(comm, "ncclCommFinalize");
    if (!me) return ncclInvalidArgument;
    if (me->doing != Rank::Doing::Nothing)
        return refused("ncclCommFinalize", "something else is under way");
    const std::lock_guard lock(mutex);
    me->doing = Rank::Doing::Finalizing;
    me->asked = 0;
    me->finalizes = true;
    me->group->finalize(me->rank);
    return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    const auto planned = enter("ncclCommDestroy");
    const auto me = rank_of(comm, "ncclCommDestroy");
    if (!me || !fake::remove_handle("communicator", comm, "ncclCommDestroy"))
        return ncclInvalidArgument;
    if (!me->finalized) refused("ncclCommDestroy", "it was not finalized");
    forget(comm, *me);
    return planned;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
    const auto planned = enter("ncclCommAbort");
    const auto me = rank_of(comm, "ncclCommAbort");
    if (!me || !fake::remove_handle("communicator", comm, "ncclCommAbort"))
        return ncclInvalidArgument;
    forget(comm, *me);
    wait_for_others(*me->group);
    return planned;
}

}  // extern "C"
