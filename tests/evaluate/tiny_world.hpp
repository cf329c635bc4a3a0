#pragma once
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <span>
#include <vector>

#include "eyas/evaluate/speculative_decoder.hpp"
#include "tests/evaluate/tiny_pair.hpp"

namespace eyas::test {

inline constexpr TinySizes world_sizes{32, 48, 3, 4, 2, 12, 64};
inline constexpr std::int64_t world_positions = 192;

/// Texts that the target decodes by itself, all side by side, a row of each in a forward; nothing
/// of the decoder under test.
template <PrecisionPolicy P>
std::vector<Ids> plain(TargetModel<Cpu, P>& target, std::vector<Ids> texts,
                       const SpeculativeOptions& o) {
    auto cache = target.make_cache(std::ssize(texts) * (world_positions + 16));
    std::vector<KvCache::Sequence> sequences(texts.size());
    std::vector<std::int64_t> limit;
    for (const auto& t : texts)
        limit.push_back(std::min(world_positions, std::ssize(t) + o.max_new_tokens));
    for (;;) {
        Ids ids;
        std::vector<NewRows> rows;
        std::vector<std::size_t> running;
        for (std::size_t i = 0; i < texts.size(); ++i) {
            const auto held = sequences[i].length(), n = std::ssize(texts[i]);
            const bool stopped =
                held > 0 && std::ranges::find(o.stop_ids, texts[i].back()) != o.stop_ids.end();
            if (n >= limit[i] || stopped) continue;
            running.push_back(i);
            rows.push_back({&sequences[i], n - held});
            ids.insert(ids.end(), texts[i].begin() + held, texts[i].end());
        }
        if (running.empty()) return texts;
        const auto states = target.forward(ids, rows, cache);
        const auto logits = target.logits(states.last);
        std::size_t row = 0;
        for (std::size_t k = 0; k < running.size(); ++k) {
            row += static_cast<std::size_t>(rows[k].rows);
            auto& text = texts[running[k]];
            const auto v = static_cast<std::size_t>(world_sizes.vocab);
            TokenDistribution p;
            const std::span<const float> all = logits.template as<float>();
            p.assign(all.subspan((row - 1) * v, v), o.sampling);
            text.push_back(p.draw(keyed_uniform(o.sampling.seed, running[k],
                                                static_cast<std::uint64_t>(text.size()))));
        }
    }
}

inline std::vector<Ids> prompts(std::size_t count) {
    std::vector<Ids> all;
    for (std::size_t i = 0; i < count; ++i)
        all.push_back(random_ids(1 + static_cast<std::int64_t>(i * 7 % 40), world_sizes.vocab,
                                 static_cast<std::uint32_t>(i)));
    return all;
}

/// The target, a draft that knows nothing and one that was trained on its texts.
struct TinyWorld {
    TinyTarget target{world_sizes, world_positions, 1, 0.2f};
    TinyDraft random{target, 2}, trained{target};
    TinyWorld() {
        std::vector<Ids> all;
        for (const double temperature : {0.0, 0.7}) {
            SpeculativeOptions o;
            o.sampling = {.temperature = temperature, .seed = 77}, o.max_new_tokens = 47;
            std::vector<Ids> begin;
            for (std::uint32_t i = 0; i < 8; ++i)
                begin.push_back(random_ids(1, world_sizes.vocab, i));
            for (auto& text : plain(target.model, begin, o)) all.push_back(text);
        }
        trained.train(target, all, 100);
    }
    static TinyWorld& get() {
        static TinyWorld world;
        return world;
    }
};

struct Told {
    std::vector<Ids> texts;
    Acceptance all;
    std::vector<Acceptance> each;
};
template <PrecisionPolicy P>
Told decode(TinyDraft& draft, const std::vector<Ids>& from, const SpeculativeOptions& o,
            TargetModel<Cpu, P>& target) {
    auto decoder = draft.decoder(TinyWorld::get().target);
    SpeculativeDecoder<Cpu, P> speculative(target, decoder, o);
    Told told{std::vector<Ids>(from.size()), {}, std::vector<Acceptance>(from.size())};
    told.all = speculative.run(from, [&](const DecodedText& t) {
        CHECK(told.texts[t.index].empty());
        CHECK(t.prompt_tokens == std::ssize(from[t.index]));
        told.texts[t.index] = t.input_ids;
        told.each[t.index] = t.acceptance;
    });
    return told;
}
inline Told decode(TinyDraft& draft, const std::vector<Ids>& from, const SpeculativeOptions& o) {
    return decode(draft, from, o, TinyWorld::get().target.model);
}

}  // namespace eyas::test
