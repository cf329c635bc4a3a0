#pragma once
#include <sys/resource.h>

#include <string>

#include "console.hpp"
#include "eyas/evaluate/evaluate.hpp"

namespace eyas::cli {

inline std::string evaluation_text(const Evaluation& e) {
    std::vector<double> accuracy, acceptance;
    for (std::size_t k = 0; k < e.ttt_length(); ++k)
        accuracy.push_back(e.accuracy(k)), acceptance.push_back(e.acceptance_rate(k));
    return "loss " + std::to_string(e.mean_loss()) + "  accuracy " + rates_text(accuracy) +
           "  acceptance " + rates_text(acceptance);
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
    return j;
}

/// Largest resident memory of this process so far, in MB.
inline double peak_memory_mb() {
    struct rusage u {};
    getrusage(RUSAGE_SELF, &u);
    return static_cast<double>(u.ru_maxrss) / 1024.0;
}

}  // namespace eyas::cli
