#pragma once
#include <algorithm>
#include <cstdlib>
#include <string>

#include "eyas/collective/rendezvous.hpp"

namespace eyas {

/// Which of the GPUs that a process sees is its own, as one of a group: the one with the number of
/// its local rank, which its launcher tells (LOCAL_RANK of torchrun, or what Open MPI and Slurm set
/// where they number the ranks, too), else of its rank (processes that were started by hand, on one
/// machine). Where CUDA_VISIBLE_DEVICES shows one GPU alone, it is that: the launcher has chosen.
/// `gpus`: how many the process sees; where that is none, making the device tells why. Throws
/// ContractError for variables that make no sense, ResourceError where the processes of this
/// machine are more than its GPUs. `lookup`: as std::getenv.
template <class Lookup>
int gpu_of_rank(const Lookup& lookup, const Rendezvous& r, int gpus) {
    const detail::EnvironmentReader from(lookup);
    const char *local = "LOCAL_RANK", *locals = "LOCAL_WORLD_SIZE";
    if (!from.has(local) && !from.has("RANK")) {
        local = "OMPI_COMM_WORLD_LOCAL_RANK", locals = "OMPI_COMM_WORLD_LOCAL_SIZE";
        if (!from.has(local)) local = "SLURM_LOCALID", locals = nullptr;
    }
    const bool is_told = from.has(local);
    const auto own = is_told
                         ? from.number(local, 0, r.world - 1, "Number a machine's processes from 0")
                         : r.rank;
    const auto least =
        locals && from.has(locals)
            ? from.number(locals, 1, r.world, "Set it to the number of this machine's processes")
            : 1;
    if (gpus == 0) return own;
    const auto shown = from.text("CUDA_VISIBLE_DEVICES");
    if (gpus == 1 && !shown.empty() && shown.find(',') == shown.npos) return 0;
    if (const auto needed = std::max(own + 1, least); gpus < needed)
        throw ResourceError(
            "this process sees " + std::to_string(gpus) + " GPUs, and at least " +
                std::to_string(needed) + " processes of this machine want one each",
            is_told ? local : "RANK",
            is_told
                ? "Start a process for each GPU, or show more of them (CUDA_VISIBLE_DEVICES)"
                : "Start a process for each GPU; of processes on several machines tell each its "
                  "LOCAL_RANK");
    return own;
}

/// The same from this process's environment.
inline int gpu_of_rank(const Rendezvous& r, int gpus) {
    return gpu_of_rank([](const char* name) { return std::getenv(name); }, r, gpus);
}

}  // namespace eyas
