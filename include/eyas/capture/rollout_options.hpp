#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "eyas/capture/sampling.hpp"
#include "eyas/core/error.hpp"

namespace eyas {

/// What is to be answered. The index names the request: draws depend on it, and results carry it.
struct RolloutRequest {
    std::int64_t index = 0;
    std::vector<std::int64_t> prompt;
};

struct RolloutReport {
    std::int64_t requests = 0;  // in all
    std::int64_t stopped = 0;   // sequences that ended with a stop token
    std::int64_t cut = 0;       // sequences that reached the most new tokens
    std::int64_t prompt_tokens = 0, generated_tokens = 0;  // of sequences that ended or run
    std::int64_t steps = 0;                                // forwards
    std::int64_t sequence_steps = 0;  // sequences that had rows in a forward, over all forwards
    double seconds = 0;
    bool interrupted = false;  // the stop flag ended it early

    std::int64_t finished() const { return stopped + cut; }
    double mean_batch() const {
        return steps ? static_cast<double>(sequence_steps) / static_cast<double>(steps) : 0;
    }
    double tokens_per_second() const {
        return seconds > 0 ? static_cast<double>(generated_tokens) / seconds : 0;
    }
};

struct RolloutOptions {
    SamplingOptions sampling = {};
    std::int64_t max_new_tokens = 256;
    std::vector<std::int64_t> stop_ids = {};
    std::int64_t slots = 16;            // sequences that run at once
    std::int64_t prefill_tokens = 512;  // rows of prompts in a forward, beside those that decode
    std::int64_t cache_tokens = 0;      // of the KV cache; 0: enough for the longest `slots`
    bool capture = false;               // keep hidden states of all rows
    std::function<void(const RolloutReport&)> on_step = {};  // after each forward
    const std::atomic<bool>* stop = nullptr;                 // looked at between forwards

    /// Throws ContractError for what is out of range.
    void check(std::int64_t vocab_size) const {
        sampling.check();
        const auto at_least_one = [](std::int64_t n, const char* name) {
            if (n < 1)
                throw ContractError(std::string(name) + " is " + std::to_string(n),
                                    "RolloutOptions", "Give at least 1");
        };
        at_least_one(max_new_tokens, "max_new_tokens");
        at_least_one(slots, "slots");
        at_least_one(prefill_tokens, "prefill_tokens");
        constexpr auto most = std::int64_t{1} << 40;
        if (cache_tokens < 0 || cache_tokens > most)
            throw ContractError("cache_tokens is " + std::to_string(cache_tokens), "RolloutOptions",
                                "Give 0 to " + std::to_string(most));
        require_stop_ids(stop_ids, vocab_size, "RolloutOptions");
    }
};

}  // namespace eyas
