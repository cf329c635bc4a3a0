#pragma once
#include <catch2/catch.hpp>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "eyas/capture/feature_sinks.hpp"
#include "eyas/capture/rollout_job.hpp"
#include "eyas/device/cpu.hpp"
#include "tests/capture/tiny_llama.hpp"

namespace eyas::test {

/// A tiny model and nine prompts, answered into a directory that goes at the end.
struct RolloutFixture {
    ScratchDirectory dir;
    std::vector<Prompt> prompts;
    RolloutOptions options{.sampling = {.temperature = 1.5, .seed = 3},
                           .max_new_tokens = 12,
                           .stop_ids = {7, 8, 9},
                           .slots = 4,
                           .capture = true};
    std::filesystem::path out = dir.path() / "answers.jsonl";

    RolloutFixture() {
        TinyLlama(true, 1, packable).write(dir.path() / "model");
        for (std::uint32_t i = 0; i < 9; ++i)
            prompts.push_back({"p" + std::to_string(i), random_ids(3 + 4 * i, packable.vocab, i)});
    }
    template <PrecisionPolicy P = F32>
    TargetModel<Cpu, P> model(std::vector<std::int64_t> layers = {0, 2, 5}) const {
        return TargetModel<Cpu, P>(HfWeights(dir.path() / "model"), {layers});
    }
    template <PrecisionPolicy P, class Sink>
    RolloutJobReport answer(TargetModel<Cpu, P>& m, Sink&& sink,
                            std::int64_t max_len = 2048) const {
        return answer_prompts(m, std::span<const Prompt>(prompts), out, options, sink, max_len);
    }
    std::filesystem::path features() const { return dir.path() / "features"; }
    std::filesystem::path beside(const char* suffix) const { return out.string() + suffix; }
    std::vector<std::string> lines() const {
        std::vector<std::string> all;
        eyas::detail::for_each_line(out, [&](std::string_view l, auto&&) { all.emplace_back(l); });
        return all;
    }
};

/// A sink: ends a rollout like a full disk, when `left` answers were taken.
struct Failing : NoFeatures {
    explicit Failing(std::int64_t n) : left(n) {}
    void take(const GeneratedSequence&) {
        if (left-- == 0) throw ResourceError("full", "disk", "Free some");
    }
    std::int64_t left;
};

template <PrecisionPolicy P>
bool skips(const TargetModel<Cpu, P>& model) {
    if (model.row_invariant()) return false;
    WARN("SKIPPED: no packed products on this processor");
    return true;
}

}  // namespace eyas::test
