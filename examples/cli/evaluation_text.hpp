#pragma once
#include <sys/resource.h>

#include <cstdio>
#include <string>

#include "console.hpp"
#include "eyas/evaluate/evaluate.hpp"

namespace eyas::cli {

/// "1.57"
inline std::string length_text(const Acceptance& a) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3f", a.length());
    return text;
}

/// What drafts were good for, into `to`.
inline void put_acceptance(const Acceptance& a, OrderedJson& to) {
    to["acceptance_length"] = a.length();
    to["target_passes"] = a.passes;
    to["accepted_at_depth"] = OrderedJson::array();
    for (std::size_t i = 0; i < a.proposed.size(); ++i)
        to["accepted_at_depth"].push_back(a.rate(i));
}

inline std::string evaluation_text(const Evaluation& e) {
    std::vector<double> accuracy, acceptance;
    for (std::size_t k = 0; k < e.ttt_length(); ++k)
        accuracy.push_back(e.accuracy(k)), acceptance.push_back(e.acceptance_rate(k));
    std::string text = "loss " + std::to_string(e.mean_loss()) + "  accuracy " +
                       rates_text(accuracy) + "  acceptance " + rates_text(acceptance);
    if (e.decoded.passes > 0) text += "  acceptance length " + length_text(e.decoded);
    return text;
}

inline OrderedJson evaluation_json(const Evaluation& e) {
    OrderedJson j{{"samples", e.samples},
                  {"loss", e.mean_loss()},
                  {"accuracy", OrderedJson::array()},
                  {"acceptance", OrderedJson::array()}};
    for (std::size_t k = 0; k < e.ttt_length(); ++k) {
        j["accuracy"].push_back(e.accuracy(k));
        j["acceptance"].push_back(e.acceptance_rate(k));
    }
    j["expected_tokens_per_pass"] = e.expected_tokens_per_pass();
    if (e.decoded.passes > 0) put_acceptance(e.decoded, j);
    return j;
}

/// Largest resident memory of this process so far, in MB.
inline double peak_memory_mb() {
    struct rusage u {};
    getrusage(RUSAGE_SELF, &u);
    return static_cast<double>(u.ru_maxrss) / 1024.0;
}

}  // namespace eyas::cli
