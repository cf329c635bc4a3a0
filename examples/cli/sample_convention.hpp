#pragma once
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>

#include "eyas/capture/require_target.hpp"
#include "eyas/checkpoint/draft_config.hpp"
#include "eyas/checkpoint/draft_convention.hpp"
#include "eyas/sample/capture_convention.hpp"

namespace eyas::cli {

inline void say_silent() { std::printf("samples do not say how they were captured\n"); }

/// What the samples of a manifest say of how they were captured; a line where they, or some, do
/// not. Throws DataError where they say different things.
inline std::optional<CaptureConvention> convention_of_samples(const Manifest& samples) {
    CommonConvention common;
    for (const auto& ref : samples.refs) common(ref);
    if (!common.said())
        say_silent();
    else if (common.silent() > 0)
        std::printf("%zu of %zu samples do not say how they were captured\n", common.silent(),
                    samples.refs.size());
    return common.said();
}

/// Throws ContractError unless samples of this convention are what the draft of a config file
/// reads, and the states of the target in a directory.
inline void require_captured_for(const CaptureConvention& c, const ModelConfig& draft,
                                 const std::string& config_file, const std::string& target) {
    require_convention(c, draft, config_file);
    if (!require_target(c, HfWeights(target)))
        std::printf("%s holds no layers: only sizes and tokenizer were compared with the samples\n",
                    target.c_str());
}

/// The config beside a draft's weights, where there is one.
inline std::optional<ModelConfig> config_beside(const std::filesystem::path& weights) {
    const auto file = weights.parent_path() / "config.json";
    if (!std::filesystem::exists(file)) return std::nullopt;
    return read_draft_config(file);
}

}  // namespace eyas::cli
