#include "eyas/capture/target_model.hpp"

#include <catch2/catch.hpp>

#include "eyas/device/cpu.hpp"
#include "tests/capture/tiny_llama.hpp"

using namespace eyas;
using eyas::test::Matrix;
using eyas::test::random_ids;
using eyas::test::ScratchDirectory;
using eyas::test::TinyLlama;

namespace {

// Largest relative L2 error of a row of `width` columns.
double worst_row(const float* got, std::int64_t stride, const Matrix& want, std::int64_t width) {
    double worst = 0;
    const auto rows = static_cast<std::int64_t>(want.size()) / width;
    for (std::int64_t r = 0; r < rows; ++r) {
        double error = 0, norm = 0;
        for (std::int64_t j = 0; j < width; ++j) {
            const double w = want[static_cast<std::size_t>(r * width + j)];
            const double d = static_cast<double>(got[r * stride + j]) - w;
            error += d * d;
            norm += w * w;
        }
        worst = std::max(worst, std::sqrt(error / norm));
    }
    return worst;
}

// fp32 rounds each operation by at most u = 6e-8. A sum of n <= 40 products errs by about sqrt(n) u
// = 4e-7 of its size; a layer chains some 8 such steps (norm, qkv, rotary angles of up to 100
// radians with error 100 u = 6e-6 in the fastest pair, scores, softmax, output, gate, down), 6
// layers follow one another: 6 * (8 * 4e-7 + 6e-6) = 6e-5. A wrong head, angle, mask or scale gives
// 1e-2 and more.
constexpr double tolerance = 6e-5;

TargetModel<Cpu> model_of(const TinyLlama& llama, DType dtype, TargetOptions options = {}) {
    const ScratchDirectory dir;
    llama.write(dir.path(), dtype);
    return TargetModel<Cpu>(HfWeights(dir.path()), options);
}

}  // namespace

TEST_CASE("packed sequences give the states of an independent forward", "[capture]") {
    const auto dtype = GENERATE(DType::F32, DType::BF16);
    const bool tied = GENERATE(true, false);
    const TinyLlama llama(tied);
    auto model = model_of(llama, dtype, {{0, 3, 5}});
    // One token; a few; more than the 64 rows of an attention tile.
    const std::vector<std::int64_t> lengths{1, 7, 100, 64};
    std::vector<std::int64_t> ids;
    for (auto n : lengths) {
        const auto more = random_ids(n, llama.vocab, static_cast<std::uint32_t>(n));
        ids.insert(ids.end(), more.begin(), more.end());
    }
    const auto states = model.forward(ids, lengths);
    REQUIRE(states.captured.shape() == Shape{172, 3 * llama.width});
    REQUIRE(states.last.shape() == Shape{172, llama.width});
    const auto logits = model.logits(states.last);
    std::int64_t row = 0;
    for (auto n : lengths) {
        const std::vector<std::int64_t> own(ids.begin() + row, ids.begin() + row + n);
        const auto want = llama.forward(own);
        const auto* captured = states.captured.as<float>().data() + row * 3 * llama.width;
        std::int64_t column = 0;
        for (const std::size_t layer : {0u, 3u, 5u}) {
            CHECK(worst_row(captured + column, 3 * llama.width, want[layer], llama.width) <
                  tolerance);
            column += llama.width;
        }
        CHECK(worst_row(states.last.as<float>().data() + row * llama.width, llama.width,
                        want.back(), llama.width) < tolerance);
        CHECK(worst_row(logits.as<float>().data() + row * llama.vocab, llama.vocab,
                        llama.logits(want.back()), llama.vocab) < tolerance);
        row += n;
    }
}

TEST_CASE("a sequence alone and an empty pack", "[capture]") {
    const TinyLlama llama;
    auto model = model_of(llama, DType::BF16);
    const auto ids = random_ids(9, llama.vocab, 3);
    const auto want = llama.forward(ids);
    const auto states = model.forward(ids);
    CHECK(worst_row(states.last.as<float>().data(), llama.width, want.back(), llama.width) <
          tolerance);
    CHECK(model.forward({}, {}).last.shape() == Shape{0, llama.width});
}

TEST_CASE("the default layers are low, middle and high", "[capture]") {
    CHECK(default_capture_layers(30) == std::vector<std::int64_t>{1, 14, 26});
    CHECK(default_capture_layers(5) == std::vector<std::int64_t>{1, 1, 1});
    CHECK_THROWS_AS(default_capture_layers(4), ContractError);
    const auto model = model_of(TinyLlama(), DType::BF16);
    const auto layers = model.captured_layers();
    CHECK(std::vector<std::int64_t>(layers.begin(), layers.end()) ==
          std::vector<std::int64_t>{1, 2, 2});
}

TEST_CASE("the fingerprint follows weights and config", "[capture]") {
    const TinyLlama llama;
    const auto same = model_of(llama, DType::BF16).fingerprint();
    CHECK(model_of(llama, DType::BF16).fingerprint() == same);
    CHECK(model_of(llama, DType::F32).fingerprint() == same);  // the same values, stored wider
    CHECK(model_of(TinyLlama(true, 2), DType::BF16).fingerprint() != same);
    TinyLlama other;
    other.theta = 500000;
    CHECK(model_of(other, DType::BF16).fingerprint() != same);
}

TEST_CASE("bad input is refused before any work", "[capture]") {
    const TinyLlama llama;
    auto model = model_of(llama, DType::BF16);
    const std::vector<std::int64_t> ids{1, 2, 3};
    const auto run = [&](std::vector<std::int64_t> tokens, std::vector<std::int64_t> lengths) {
        return model.forward(tokens, lengths);
    };
    CHECK_THROWS_AS(run(ids, {2}), ContractError);
    CHECK_THROWS_AS(run(ids, {2, 2}), ContractError);
    CHECK_THROWS_AS(run(ids, {3, 0}), ContractError);
    CHECK_THROWS_AS(run(ids, {4, -1}), ContractError);
    CHECK_THROWS_WITH(run({1, 50}, {2}),
                      Catch::Contains("token id 50") && Catch::Contains("below 50"));
    CHECK_THROWS_AS(run({-1}, {1}), DataError);
    CHECK_THROWS_WITH(run(random_ids(129, 50, 1), {129}), Catch::Contains("--max-len"));
    CHECK_THROWS_AS(model.logits(Tensor(DType::F32, {2, 7})), ContractError);
    CHECK_THROWS_AS(model_of(llama, DType::BF16, {{0, 6}}), ContractError);
    CHECK_THROWS_AS(model_of(llama, DType::BF16, {{-1}}), ContractError);
}

TEST_CASE("a model that the forward does not know, or not whole, is refused by name", "[capture]") {
    const ScratchDirectory dir;
    const auto refused = [&](const TinyLlama& llama, const Json& config, DType dtype,
                             const std::string& words) {
        llama.write(dir.path(), dtype, config);
        CHECK_THROWS_AS(load_target_weights(HfWeights(dir.path())), DataError);
        CHECK_THROWS_WITH(load_target_weights(HfWeights(dir.path())), Catch::Contains(words));
    };
    const TinyLlama llama;
    const auto with = [&](const char* key, Json value) {
        auto config = llama.config();
        config[key] = std::move(value);
        return config;
    };
    refused(llama, with("model_type", "qwen2_moe"), DType::BF16, "qwen2_moe");
    refused(llama, with("attention_bias", true), DType::BF16, "q_proj.bias");
    refused(llama, with("mlp_bias", true), DType::BF16, "gate_proj.bias");
    refused(llama, with("rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.0}}), DType::BF16,
            "dynamic");
    refused(llama, with("vocab_size", 49), DType::BF16, "model.embed_tokens.weight");
    refused(llama, with("tie_word_embeddings", false), DType::BF16, "lm_head.weight");
    refused(llama, with("num_hidden_layers", 7), DType::BF16, "model.layers.6.");
    refused(llama, llama.config(), DType::F64, "float64");
}
