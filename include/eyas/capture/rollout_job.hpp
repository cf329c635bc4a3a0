#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eyas/capture/rollout.hpp"
#include "eyas/capture/rollout_log.hpp"
#include "eyas/core/checksum.hpp"
#include "eyas/ingest/sample_statistics.hpp"

namespace eyas {

/// What decides every token of a rollout: two with equal identities give equal answers. Slots,
/// prefill and cache are not in it.
template <Device D>
OrderedJson rollout_identity(const TargetModel<D>& model, std::span<const Prompt> prompts,
                             const RolloutOptions& o) {
    std::string all;
    for (const auto& p : prompts) {
        const auto ids = std::as_bytes(std::span(p.input_ids));
        all += hex64(xxh3(ids)) + " " + std::to_string(p.input_ids.size()) + " " + p.id + "\n";
    }
    return {{"rollout", 1},
            {"target", model.fingerprint()},
            {"prompts", hex64(xxh3(std::as_bytes(std::span(all))))},
            {"temperature", o.sampling.temperature},
            {"top_p", o.sampling.top_p},
            {"seed", o.sampling.seed},
            {"max_new_tokens", o.max_new_tokens},
            {"stop_ids", o.stop_ids}};
}

struct RolloutJobReport {
    RolloutReport run;            // of this call
    std::int64_t reused = 0;      // answers that were there
    SampleStatistics statistics;  // of all answers that are there now
    bool stopped = false;         // the stop flag ended it; run it again to go on
};

/// Answers all prompts into `out` (RolloutLog) and gives the features of each to `sink`
/// (feature_sinks.hpp) before its answer counts. What an earlier call left is used. `max_len` is
/// what training will use of a sample. Throws what RolloutLog, Rollout and the sink do, and
/// DataError where there is no supervised token in any answer; what ended by then stays.
template <Device D, class Sink>
RolloutJobReport answer_prompts(TargetModel<D>& model, std::span<const Prompt> prompts,
                                const std::filesystem::path& out, const RolloutOptions& options,
                                Sink& sink, std::int64_t max_len) {
    RolloutJobReport report;
    const auto count = [&](const GeneratedSequence& s) {
        report.statistics.add(s.conversation().loss_mask, max_len);
    };
    Rollout<D> rollout(model, options);
    sink.begin(std::ssize(prompts));
    RolloutLog log(out, rollout_identity(model, prompts, options), prompts,
                   {model.config().vocab_size, options.max_new_tokens},
                   [&](const GeneratedSequence& s) {
                       const bool there = sink.has(s);
                       if (there) count(s);
                       return there;
                   });
    std::vector<RolloutRequest> requests;
    for (std::int64_t i = 0; i < std::ssize(prompts); ++i)
        if (!log.has(i)) requests.push_back({i, prompts[static_cast<std::size_t>(i)].input_ids});
    report.reused = log.answers();
    report.run = rollout.run(requests, [&](GeneratedSequence&& s) {
        sink.take(s);
        log.append(s);
        count(s);
    });
    report.stopped = log.missing() > 0;
    if (report.stopped) return report;
    report.statistics.check(out.string());
    sink.finish();
    log.complete();
    return report;
}

}  // namespace eyas
