#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/arena.hpp"
#include "eyas/core/error.hpp"
#include "eyas/format/hf_config.hpp"
#include "eyas/optimizer/adamw.hpp"

namespace eyas {

/// Bytes that a trainer will hold at its peak, by part; besides them a process holds its code and
/// the libraries' own (some tens of MB).
struct MemoryPlan {
    std::vector<ArenaPart> parts;
    std::int64_t rows = 0;  // B*T of the largest batch

    std::uint64_t total() const {
        std::uint64_t sum = 0;
        for (const auto& p : parts) sum += p.bytes;
        return sum;
    }

    /// Of the parts that grow with the rows of a batch.
    std::uint64_t of_rows() const {
        std::uint64_t sum = 0;
        for (const auto& p : parts)
            if (p.name.starts_with("step: ") || p.name.starts_with("loader: ")) sum += p.bytes;
        return sum;
    }

    /// A line a part, and the sum.
    std::string text() const {
        std::string all;
        const auto line = [&](const std::string& name, std::uint64_t bytes) {
            char text[160];
            std::snprintf(text, sizeof text, "  %-44s %10.1f MB\n", name.c_str(),
                          static_cast<double>(bytes) / 1e6);
            all += text;
        };
        for (const auto& p : parts) line(p.name, p.bytes);
        line("in all", total());
        return all;
    }

    /// Throws ResourceError where the plan exceeds `budget` bytes (0: none): it names the knobs,
    /// and what each would save.
    void require_within(std::uint64_t budget) const {
        if (budget == 0 || total() <= budget) return;
        const auto megabytes = [](std::uint64_t bytes) {
            return std::to_string((bytes + 999'999) / 1'000'000) + " MB";
        };
        const auto grows = of_rows(), fixed = total() - grows;
        std::string remedy;
        if (fixed < budget) {
            const auto fit =
                static_cast<std::int64_t>(static_cast<double>(budget - fixed) /
                                          static_cast<double>(grows) * static_cast<double>(rows));
            remedy = "Batches of " + std::to_string(std::max<std::int64_t>(fit, 1)) +
                     " rows instead of " + std::to_string(rows) +
                     " would fit (batch_size times max_len or pack_tokens, or "
                     "what rows are padded to)";
        } else {
            remedy = "Weights and optimizer alone need " + megabytes(fixed) +
                     ": use a smaller draft or more memory";
        }
        const auto without = [&](const ArenaPart& p, const std::string& knob) {
            remedy += "; without " + knob + " it is " + megabytes(p.bytes) + " less";
        };
        for (const auto& p : parts)
            if (p.name.starts_with("checkpoint: "))
                without(p, "async_checkpoints (--no-async-checkpoints)");
            else if (p.name == "draft: packed weights" && p.bytes > 0)
                without(p, "packed_weights (--no-packed-weights)");
        throw ResourceError("the plan needs " + megabytes(total()) + ", the budget is " +
                                megabytes(budget) + "\n" + text(),
                            "memory plan", remedy + "; half the rows save " + megabytes(grows / 2));
    }
};

/// Plan of training a model of type M with AdamW on batches of up to `rows` rows (B*T), from a
/// loader whose ring takes `ring_bytes`; made before anything is allocated. `checkpoint_copy`: by a
/// trainer that writes checkpoints while it trains (copies_checkpoints(options), on rank 0). Of
/// several ranks each keeps its share of the optimizer's state; rank 0 has room for all of it, for
/// checkpoints. M offers memory_plan(config, options, rows, device) and parameter_count(config), as
/// Eagle3 does.
template <class M, class Options>
MemoryPlan memory_plan(const ModelConfig& config, const Options& options, std::int64_t rows,
                       std::uint64_t ring_bytes, bool checkpoint_copy = false,
                       std::int64_t rank = 0, std::int64_t world = 1,
                       const typename M::DeviceType& device = typename M::DeviceType()) {
    MemoryPlan plan{M::memory_plan(config, options, rows, device), rows};
    using Element = typename M::PrecisionType::Element;
    const auto trained = static_cast<std::uint64_t>(M::parameter_count(config)),
               ranks = static_cast<std::uint64_t>(world), mine = (trained + ranks - 1) / ranks;
    plan.parts.push_back({"optimizer", adamw_bytes<Element>(mine)});
    const auto weights = trained * sizeof(Element), own = weights + adamw_bytes<Element>(trained);
    if (world > 1 && rank == 0)
        plan.parts.push_back(
            {"optimizer: masters and moments of all ranks, for checkpoints", trained * 12});
    if (checkpoint_copy && world > 1)
        plan.parts.push_back({"checkpoint: copy of weights", weights});
    else if (checkpoint_copy)
        plan.parts.push_back({"checkpoint: copy of weights and optimizer", own});
    if (ring_bytes > 0) plan.parts.push_back({"loader: ring", ring_bytes});
    return plan;
}

}  // namespace eyas
