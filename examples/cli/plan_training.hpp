#pragma once
#include <algorithm>
#include <cstdint>

#include "draft.hpp"
#include "eyas/loader/options.hpp"
#include "eyas/sample/manifest.hpp"

namespace eyas::cli {

/// What training the draft on these samples will hold. Samples whose lengths are not known, as
/// those of a stream, count as max_len.
inline MemoryPlan plan_training(DraftArguments& draft, const ModelConfig& config,
                                const LoaderOptions& loader, const Manifest& manifest) {
    std::int64_t tokens = manifest.refs.empty() ? loader.max_len : 1;
    for (const auto& ref : manifest.refs)
        tokens = std::max(
            tokens, ref.num_tokens > 0 ? std::min(ref.num_tokens, loader.max_len) : loader.max_len);
    const auto rows = loader.batch_size * tokens;
    // A row: the states, 4 widths of them in bfloat16 at least, ids, two masks.
    const auto row = static_cast<std::uint64_t>(8 * config.target_hidden_size + 24);
    const auto slots = static_cast<std::uint64_t>(loader.prefetch) + 1;
    return draft.memory_plan(config, rows,
                             loader.ring_bytes > 0
                                 ? static_cast<std::uint64_t>(loader.ring_bytes)
                                 : static_cast<std::uint64_t>(rows) * row * slots);
}

}  // namespace eyas::cli
