#pragma once
#include <cstdlib>
#include <string>

#include "eyas/core/error.hpp"

namespace disagg {

inline std::string variable(const char* name, const std::string& fallback = "") {
    const char* v = std::getenv(name);
    return v && *v ? v : fallback;
}
inline std::string needed(const char* name) {
    auto v = variable(name);
    if (v.empty())
        throw eyas::ContractError(std::string(name) + " is not set", "environment",
                                  "See examples/disagg/README.md");
    return v;
}
inline long number(const char* name, long fallback) {
    const auto text = variable(name);
    char* end = nullptr;
    const long v = text.empty() ? fallback : std::strtol(text.c_str(), &end, 10);
    if (end && *end)
        throw eyas::ContractError(std::string(name) + "=" + text + " is no whole number",
                                  "environment", "Write digits");
    return v;
}

/// Everything the program needs, from the environment. The DISAGG_* names are the reference's; the
/// EYAS_* ones say what is trained.
struct Settings {
    std::string role, store_root, store_id, manifest, auth_token;
    long log_interval = 50, wait_seconds = 600;
    std::string features, target, draft_config, vocab_map, out;
    long ttt_length = 7, max_steps = 0;
    double learning_rate = 1e-4;

    /// DISAGG_ROLE, else by rank (torchrun, Slurm, Open MPI): rank 0 produces, others consume;
    /// without any of these, colocated.
    static std::string role_from_environment() {
        const auto role = variable("DISAGG_ROLE");
        if (role.empty()) {
            for (const char* rank : {"RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"})
                if (!variable(rank).empty()) return number(rank, 0) == 0 ? "producer" : "consumer";
            return "colocated";
        }
        if (role != "producer" && role != "consumer" && role != "colocated")
            throw eyas::ContractError("DISAGG_ROLE is '" + role + "'", "environment",
                                      "Use producer, consumer or colocated");
        return role;
    }

    static Settings from_environment() {
        Settings s;
        s.role = role_from_environment();
        s.log_interval = number("DISAGG_LOG_INTERVAL", s.log_interval);
        if (s.log_interval < 1)
            throw eyas::ContractError("DISAGG_LOG_INTERVAL is below 1", "environment",
                                      "Use 1 or more");
        if (s.role != "colocated") {
            s.store_root = needed("DISAGG_STORE_ROOT");
            s.manifest = needed("DISAGG_MANIFEST");
            s.store_id = variable("DISAGG_STORE_ID", "disagg");
            s.auth_token = variable("DISAGG_AUTH_TOKEN");
            s.wait_seconds = number("DISAGG_PEER_WAIT_TIMEOUT", s.wait_seconds);
        }
        if (s.role != "consumer") s.features = needed("EYAS_FEATURES");
        if (s.role == "producer") return s;
        s.target = needed("EYAS_TARGET");
        s.draft_config = needed("EYAS_DRAFT_CONFIG");
        s.vocab_map = variable("EYAS_VOCAB_MAP");
        s.out = needed("EYAS_OUT");
        s.ttt_length = number("EYAS_TTT_LENGTH", s.ttt_length);
        s.max_steps = number("EYAS_MAX_STEPS", s.max_steps);
        s.learning_rate = std::atof(variable("EYAS_LR", "1e-4").c_str());
        return s;
    }
};

}  // namespace disagg
