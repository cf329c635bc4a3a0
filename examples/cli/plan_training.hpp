#pragma once
#include <algorithm>
#include <cstdint>

#include "draft.hpp"
#include "eyas/loader/options.hpp"
#include "eyas/loader/ring_memory.hpp"
#include "eyas/sample/manifest.hpp"

namespace eyas::cli {

/// What training the draft on these samples will hold, with or without a copy of the state for
/// checkpoints. Samples whose lengths are not known, as those of a stream, count as max_len, in
/// bfloat16; packed rows as full. Throws ContractError for impossible options of the loader.
inline MemoryPlan plan_training(const DraftArguments& draft, const ModelConfig& config,
                                const LoaderOptions& loader, const Manifest& manifest,
                                bool checkpoint_copy) {
    eyas::detail::check_loader_options(loader);
    std::int64_t tokens = manifest.refs.empty() ? loader.max_len : 1;
    for (const auto& ref : manifest.refs)
        tokens = std::max(
            tokens, ref.num_tokens > 0 ? std::min(ref.num_tokens, loader.max_len) : loader.max_len);
    tokens = loader.packed() ? loader.pack_tokens : loader.padded(tokens);
    auto batch = eyas::detail::largest_batch_bytes(manifest, loader);
    if (batch == 0)
        batch = BatchArena::bytes_for(loader.batch_size, tokens, config.target_hidden_size,
                                      DType::BF16, loader.packed());
    const auto slots = static_cast<std::uint64_t>(loader.prefetch) + 1;
    return draft.memory_plan(
        config, loader.batch_size * tokens,
        loader.ring_bytes > 0 ? static_cast<std::uint64_t>(loader.ring_bytes) : batch * slots,
        checkpoint_copy, loader.rank, loader.world);
}

}  // namespace eyas::cli
