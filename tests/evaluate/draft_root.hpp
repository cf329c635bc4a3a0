#pragma once
#include <cmath>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "eyas/evaluate/draft_tree.hpp"
#include "tests/evaluate/tiny_pair.hpp"

namespace eyas::test {

inline constexpr TinySizes pair_sizes{32, 48, 3, 4, 2, 12, 64};

/// A target, a draft with 16 ids of 64, and the states of a prompt.
struct TinyPair {
    TinyTarget target{pair_sizes};
    TinyDraft draft{target, 4};
    DraftDecoder<Cpu> decoder = draft.decoder(target);

    /// A prompt's rows in a cache: the place where trees begin.
    struct Root {
        KvCache::Sequence sequence;
        std::vector<float> state;
        std::int64_t position = 0;
        DraftRoot root(std::uint64_t id = 0) { return {&sequence, state.data(), id, position}; }
    };
    /// Rows of the prompt, then of `path` (a row's state goes into the next), one by one, as a
    /// text.
    Root fed(const Ids& prompt, KvCache& cache, const Ids& path = {}) {
        const auto d = pair_sizes.width, n = std::ssize(prompt) - 1;
        const auto states = target.model.forward(prompt);
        std::vector<float> x(static_cast<std::size_t>(n * d));
        decoder.project(states.captured.as<float>().data(), n, x.data());
        Root r;
        const NewRows rows{&r.sequence, n};
        decoder.forward(x.data(), std::span(prompt).subspan(1), {&rows, 1}, cache, x.data());
        r.state.assign(x.end() - d, x.end());
        for (const auto& token : path) {
            const NewRows one{&r.sequence, 1};
            decoder.forward(r.state.data(), {&token, 1}, {&one, 1}, cache, r.state.data());
        }
        r.position = std::ssize(prompt) + std::ssize(path);
        return r;
    }
    KvCache room() { return decoder.make_cache(4096); }
};

/// Log probability of each target id that has a draft id, after prompt and path; from a text
/// decoded from its beginning, softmax in double.
using Scores = std::map<std::int64_t, double>;
inline Scores scores(TinyPair& pair, const Ids& prompt, const Ids& path) {
    auto cache = pair.room();
    const auto r = pair.fed(prompt, cache, path);
    std::vector<float> z(static_cast<std::size_t>(pair.draft.map.draft_vocab_size()));
    pair.decoder.logits(r.state.data(), 1, z.data());
    double sum = 0;
    for (auto v : z) sum += std::exp(static_cast<double>(v));
    Scores all;
    for (std::size_t w = 0; w < z.size(); ++w)
        all[pair.draft.map.target_id(static_cast<std::int64_t>(w))] =
            static_cast<double>(z[w]) - std::log(sum);
    return all;
}

}  // namespace eyas::test
