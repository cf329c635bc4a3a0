#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "eyas/capture/target_model.hpp"
#include "eyas/checkpoint/checkpoint.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/device/precision.hpp"
#include "eyas/evaluate/draft_decoder.hpp"
#include "eyas/model/eagle3.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "tests/capture/tiny_llama.hpp"

// A small target and drafts for it, of sizes that the device packs.
namespace eyas::test {

using Ids = std::vector<std::int64_t>;

/// Every `step`-th target id has a draft id.
inline VocabMap every(std::int64_t step, std::int64_t vocab) {
    VocabMap map;
    for (std::int64_t v = 0; v < vocab; ++v) {
        map.t2d.push_back(v % step == 0);
        if (v % step == 0) map.d2t.push_back(v - v / step);
    }
    return map;
}

/// Weights of which each has a say: a fresh draft's are so small that all its tokens are alike.
inline void enlarge(std::span<const Parameter> parameters, float factor, std::uint32_t seed) {
    std::mt19937 random(seed);
    for (const auto& p : parameters)
        for (float& x : p.value.as<float>())
            x = p.value.shape.rank() == 1 ? 0.7f + 0.6f * static_cast<float>(random() % 1000) / 1000
                                          : x * factor;
}

/// What layers add is scaled by `calm`: the smaller, the more a token follows from the one before,
/// and the easier a draft learns it.
struct TinyTarget {
    TinyLlama llama;
    TargetModel<Cpu> model;

    explicit TinyTarget(TinySizes sizes, std::int64_t positions = 192, std::uint32_t seed = 1,
                        float calm = 1)
        : llama(calmed(TinyLlama(false, seed, sizes), calm)), model(load(positions)) {}

    FrozenTarget frozen() const {
        return {view("model.embed_tokens.weight"), view("lm_head.weight")};
    }

    template <PrecisionPolicy P = F32>
    TargetModel<Cpu, P> load(std::int64_t positions) const {
        const ScratchDirectory dir;
        auto config = llama.config();
        config["max_position_embeddings"] = positions;
        llama.write(dir.path(), DType::F32, config);
        return TargetModel<Cpu, P>(HfWeights(dir.path()), {{0, 1, 2}});
    }

private:
    static TinyLlama calmed(TinyLlama llama, float calm) {
        for (auto& [name, values] : llama.weights)
            if (name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight"))
                for (auto& x : values) x *= calm;
        return llama;
    }
    TensorView view(const char* name) const {
        return {reinterpret_cast<const std::byte*>(llama.weights.at(name).data()), DType::F32,
                llama.shapes.at(name)};
    }
};

struct TinyDraft {
    VocabMap map;
    Eagle3<Cpu, F32> model;

    TinyDraft(const TinyTarget& target, std::int64_t every_id = 1, Json more = Json::object())
        : map(every(every_id, target.llama.vocab)),
          model(config(target.llama, map, more), options(), map, target.frozen(), 1) {
        enlarge(model.parameters(), 8, 5);
    }

    DraftDecoder<Cpu> decoder(const TinyTarget& target) {
        return {model.config(), map, draft_tensors(model.parameters(), map),
                target.model.embedding()};
    }

    /// Steps on texts of the target, all of one length and supervised throughout.
    void train(TinyTarget& target, const std::vector<Ids>& texts, int steps) {
        const auto b = std::ssize(texts), t = std::ssize(texts[0]), d = target.llama.width;
        Tensor ids(DType::I64, {b, t}), mask(DType::I64, {b, t}), loss(DType::I64, {b, t});
        std::ranges::fill(mask.as<std::int64_t>(), 1),
            std::ranges::fill(loss.as<std::int64_t>(), 1);
        Ids all;
        for (const auto& text : texts) {
            all.insert(all.end(), text.begin(), text.end());
            loss.as<std::int64_t>()[all.size() - 1] = 0;
        }
        std::ranges::copy(all, ids.as<std::int64_t>().begin());
        const auto states = target.model.forward(all, Ids(texts.size(), t));
        const Batch batch{ids,
                          mask,
                          loss,
                          {states.captured.view().data, DType::F32, {b, t, 3 * d}},
                          {states.last.view().data, DType::F32, {b, t, d}},
                          {},
                          {"texts"}};
        AdamW<Cpu> optimizer(Cpu(), model.parameters());
        for (int i = 0; i < steps; ++i) {
            model.zero_gradients();
            model.forward_backward(batch, 1.f);
            optimizer.step(0.01 * (1 - static_cast<double>(i) / steps));
        }
    }

private:
    static Eagle3Options options() { return {.ttt_length = 4}; }
    static ModelConfig config(const TinyLlama& llama, const VocabMap& map, const Json& more) {
        Json c{{"hidden_size", llama.width},    {"intermediate_size", 48},
               {"num_attention_heads", 4},      {"num_key_value_heads", 2},
               {"vocab_size", llama.vocab},     {"draft_vocab_size", map.draft_vocab_size()},
               {"max_position_embeddings", 192}};
        c.update(more);
        return parse_model_config(c, "test");
    }
};

/// Largest chi-square of `freedom` degrees of freedom that chance exceeds once in a million times
/// (Wilson and Hilferty 1931; z of the normal distribution is 4.7534).
inline double chi_square_limit(std::int64_t freedom) {
    const double a = 2.0 / (9.0 * static_cast<double>(freedom));
    return static_cast<double>(freedom) * std::pow(1 - a + 4.7534 * std::sqrt(a), 3);
}

/// Whether counts could be draws from expected numbers: chi-square, cells that expect fewer than 5
/// taken together.
inline bool plausible(const std::vector<double>& counts, const std::vector<double>& expected) {
    double sum = 0, rare = 0, rare_expected = 0;
    std::int64_t cells = 0;
    const auto add = [&](double n, double e) {
        if (e > 0) sum += (n - e) * (n - e) / e, ++cells;
        if (e <= 0 && n > 0) sum = INFINITY;  // the impossible
    };
    for (std::size_t i = 0; i < counts.size(); ++i) {
        if (expected[i] >= 5)
            add(counts[i], expected[i]);
        else
            rare += counts[i], rare_expected += expected[i];
    }
    add(rare, rare_expected);
    return sum < chi_square_limit(std::max<std::int64_t>(1, cells - 1));
}

}  // namespace eyas::test
