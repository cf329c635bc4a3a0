#pragma once
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <system_error>

#include "eyas/core/error.hpp"

namespace eyas {

/// Where the processes of one training meet, and which of them this one is.
struct Rendezvous {
    static constexpr int most_ranks = 256;

    int rank = 0;
    int world = 1;        // processes
    std::string address;  // of rank 0, as every rank reaches it; needed where world > 1
    std::uint16_t port = 0;
    // For the group to meet, and for each wait for a peer afterwards.
    std::chrono::milliseconds timeout{60'000};
    const std::atomic<bool>* interrupt = nullptr;  // ends the wait for others once it is true
};

namespace detail {

/// Throws ContractError for a rank, world or time-out that no group can have.
inline void check_rendezvous(const Rendezvous& r, const char* backend) {
    if (r.world < 1 || r.world > Rendezvous::most_ranks || r.rank < 0 || r.rank >= r.world ||
        r.timeout < std::chrono::milliseconds(1))
        throw ContractError("rank " + std::to_string(r.rank) + " of " + std::to_string(r.world) +
                                ", time-out " + std::to_string(r.timeout.count()) + " ms",
                            backend,
                            "Use 1 to " + std::to_string(Rendezvous::most_ranks) +
                                " ranks, numbered from 0, and a time-out above 0");
}

/// Variables of a launcher's environment; an empty one counts as missing. `lookup`: as std::getenv.
template <class Lookup>
class EnvironmentReader {
public:
    explicit EnvironmentReader(const Lookup& lookup) : lookup_(lookup) {}

    std::string text(const char* name) const {
        const char* value = lookup_(name);
        return value ? value : "";
    }
    bool has(const char* name) const { return !text(name).empty(); }

    /// Throws ContractError unless it is there and a whole number from `least` to `most`.
    int number(const char* name, int least, int most, const std::string& remedy) const {
        const auto digits = text(name);
        if (digits.empty()) throw ContractError("is missing", name, remedy);
        int value = 0;
        const auto [end, error] =
            std::from_chars(digits.data(), digits.data() + digits.size(), value);
        if (error != std::errc{} || end != digits.data() + digits.size() || value < least ||
            value > most)
            throw ContractError("is '" + digits + "', not a whole number from " +
                                    std::to_string(least) + " to " + std::to_string(most),
                                name, remedy);
        return value;
    }

private:
    const Lookup& lookup_;
};

/// The first host of a Slurm list: "node[003-010,12],x" is node003. Throws ContractError for text
/// that is none.
inline std::string first_host(const std::string& list) {
    const auto fail = [&] {
        return ContractError("'" + list + "' names no first host", "SLURM_STEP_NODELIST",
                             "Set MASTER_ADDR to rank 0's host");
    };
    std::string host;
    for (std::size_t at = 0; at < list.size() && list[at] != ',';) {
        if (list[at] != '[') {
            host += list[at++];
            continue;
        }
        const auto close = list.find(']', at);
        if (close == std::string::npos) throw fail();
        const auto first = list.find_first_of(",-]", at);
        if (first == at + 1) throw fail();
        host += list.substr(at + 1, first - at - 1);
        at = close + 1;
    }
    const bool good = !host.empty() && host.find_first_not_of(
                                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUV"
                                           "WXYZ0123456789-_.") == std::string::npos;
    if (!good) throw fail();
    return host;
}

/// The host of rank 0, where the launcher says it without MASTER_ADDR; else empty.
template <class Lookup>
std::string launcher_address(const EnvironmentReader<Lookup>& from, bool slurm) {
    // All processes on one machine.
    if (!slurm && from.has("OMPI_COMM_WORLD_LOCAL_SIZE") &&
        from.text("OMPI_COMM_WORLD_LOCAL_SIZE") == from.text("OMPI_COMM_WORLD_SIZE"))
        return "127.0.0.1";
    // Task 0 of a step is on its first node, unless a file says where tasks go. (The node that srun
    // was typed on, SLURM_LAUNCH_NODE_IPADDR, need not be one of the job's.)
    if (slurm && !from.text("SLURM_DISTRIBUTION").starts_with("arbitrary") &&
        from.has("SLURM_STEP_NODELIST"))
        return first_host(from.text("SLURM_STEP_NODELIST"));
    return "";
}

}  // namespace detail

/// What the launcher of this process says: RANK and WORLD_SIZE (torchrun, or set by hand), else
/// OMPI_COMM_WORLD_RANK and _SIZE (mpirun), else SLURM_PROCID and SLURM_STEP_NUM_TASKS or
/// SLURM_NTASKS (within srun); and MASTER_ADDR, MASTER_PORT. MASTER_ADDR may be missing where
/// mpirun started all on one machine, and under srun. torchrun's agent may listen at MASTER_PORT
/// itself, as it says; the group takes the next port then. Nothing set: a world of one.
/// `lookup(const char* name)` gives a variable's text or a null pointer, as std::getenv does.
/// Throws ContractError that names the variable which is missing or wrong.
template <class Lookup>
Rendezvous rendezvous_from_environment(const Lookup& lookup) {
    const detail::EnvironmentReader from(lookup);
    const char *rank = "RANK", *world = "WORLD_SIZE";
    bool slurm = false;
    if (!from.has(rank) && !from.has(world)) {
        rank = "OMPI_COMM_WORLD_RANK", world = "OMPI_COMM_WORLD_SIZE";
        if (!from.has(rank) && !from.has(world)) {
            // A batch script has SLURM_NTASKS too, and is one process: only a step has an id.
            if (!from.has("SLURM_STEP_ID")) return {};
            slurm = true;
            rank = "SLURM_PROCID";
            world = from.has("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
        }
    }
    Rendezvous r;
    r.world = from.number(world, 1, Rendezvous::most_ranks,
                          "Set it to the number of processes, the same for all of them");
    r.rank = from.number(rank, 0, r.world - 1,
                         std::string("Number the processes from 0 to ") + world + " - 1");
    if (r.world == 1) return r;
    r.address = from.text("MASTER_ADDR");
    if (r.address.empty()) r.address = detail::launcher_address(from, slurm);
    if (r.address.empty())
        throw ContractError("is missing", "MASTER_ADDR",
                            "Set it to the host of rank 0, as the others reach it: 127.0.0.1 where "
                            "all run on one machine");
    int port = from.number("MASTER_PORT", 1, 65535,
                           "Set it to a free port of rank 0's host, 29500 say, for all");
    if (from.text("TORCHELASTIC_USE_AGENT_STORE") == "True") port += port < 65535 ? 1 : -1;
    r.port = static_cast<std::uint16_t>(port);
    return r;
}

/// The same from this process's environment.
inline Rendezvous rendezvous_from_environment() {
    return rendezvous_from_environment([](const char* name) { return std::getenv(name); });
}

}  // namespace eyas
