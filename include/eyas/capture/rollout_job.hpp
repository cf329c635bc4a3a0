#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eyas/capture/rollout.hpp"
#include "eyas/capture/rollout_log.hpp"
#include "eyas/core/checksum.hpp"
#include "eyas/device/precision.hpp"
#include "eyas/ingest/sample_statistics.hpp"

namespace eyas {

/// What decides every token of a rollout: two with equal identities give equal answers. Slots,
/// prefill and cache are not in it.
template <Device D, PrecisionPolicy P>
OrderedJson rollout_identity(const TargetModel<D, P>& model, std::span<const Prompt> prompts,
                             const RolloutOptions& o) {
    std::string all;
    for (const auto& p : prompts) {
        const auto ids = std::as_bytes(std::span(p.input_ids));
        all += hex64(xxh3(ids)) + " " + std::to_string(p.input_ids.size()) + " " + p.id + "\n";
    }
    OrderedJson identity{{"rollout", 1},
                         {"target", model.fingerprint()},
                         {"prompts", hex64(xxh3(std::as_bytes(std::span(all))))},
                         {"temperature", o.sampling.temperature},
                         {"top_p", o.sampling.top_p},
                         {"seed", o.sampling.seed},
                         {"max_new_tokens", o.max_new_tokens},
                         {"stop_ids", o.stop_ids}};
    if (!std::same_as<P, F32>) identity["precision"] = P::name;
    return identity;
}

namespace detail {
/// Throws DataError where no answer, whatever is drawn, has a supervised token: one is the first of
/// an answer, where the second is among the first `max_len` rows, too.
inline void require_some_supervision(std::span<const Prompt> prompts, std::int64_t max_new_tokens,
                                     std::int64_t max_len, const std::string& where) {
    const bool some = max_new_tokens > 1 && std::ranges::any_of(prompts, [&](const Prompt& p) {
                          return std::ssize(p.input_ids) < max_len - 1;
                      });
    if (!some && !prompts.empty())
        throw DataError("no answer can have a supervised token", where,
                        "Ask for at least 2 new tokens to prompts of less than " +
                            std::to_string(max_len - 1) + " tokens, or raise max_len");
}
}  // namespace detail

struct RolloutJobReport {
    RolloutReport run;            // of this call
    std::int64_t reused = 0;      // answers that were there
    SampleStatistics statistics;  // of all answers that are there now
    bool stopped = false;         // the stop flag ended it; run it again to go on
};

/// Answers all prompts into `out` (RolloutLog) and gives the features of each to `sink`
/// (feature_sinks.hpp) before its answer counts. What an earlier call left is used. `max_len` is
/// what training will use of a sample. Throws what RolloutLog, Rollout and the sink do. Where the
/// sink keeps features, also DataError where no answer has a supervised token: before anything is
/// generated where none can have one, else at the end; what ended by then stays.
template <Device D, class Sink, PrecisionPolicy P>
RolloutJobReport answer_prompts(TargetModel<D, P>& model, std::span<const Prompt> prompts,
                                const std::filesystem::path& out, const RolloutOptions& options,
                                Sink& sink, std::int64_t max_len) {
    RolloutJobReport report;
    const auto count = [&](const GeneratedSequence& s) {
        report.statistics.add(s.conversation().loss_mask, max_len);
    };
    Rollout<D, P> rollout(model, options);
    if (Sink::keeps_features)
        detail::require_some_supervision(prompts, options.max_new_tokens, max_len, out.string());
    RolloutLog log(out, rollout_identity(model, prompts, options), prompts,
                   {model.config().vocab_size, options.max_new_tokens});
    sink.begin(std::ssize(prompts));  // now that nothing is refused for the sake of the answers
    log.open([&](const GeneratedSequence& s) {
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
    if (Sink::keeps_features) report.statistics.check(out.string());
    sink.finish();
    log.complete();
    return report;
}

}  // namespace eyas
