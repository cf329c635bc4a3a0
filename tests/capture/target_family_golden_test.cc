// Tiny models of each family and what transformers computes with them, in float32 and in float64
// (tests/goldens/target_family).
#include <catch2/catch.hpp>
#include <cmath>
#include <concepts>
#include <filesystem>
#include <string>
#include <vector>

#include "eyas/capture/target_model.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/format/safetensors.hpp"
#include "tests/capture/rewritten_model.hpp"
#include "tests/capture/tiny_llama.hpp"

using namespace eyas;
using eyas::test::RewrittenModel;

namespace {

const std::filesystem::path goldens = "tests/goldens/target_family";
const std::vector<std::int64_t> captured{0, 3, 5};
constexpr std::int64_t prefix = 5;

// eyas and transformers do the same operations in float32 and add in different orders; both are
// measured against float64. Of a sum of n terms with deviation s, a partial sum of k terms has size
// s sqrt(k) and is rounded by c times that. One after another, the squares add up to (c s)^2 n^2 /
// 2; in a tree, each of log2(n) levels adds (c s)^2 n. So the worst order is off by sqrt(n / 2 /
// log2(n)) times what the best is, 2.3 for the largest n here, 64; the roundings that do not depend
// on an order are the same for both. A bias, norm, head or angle that is wrong changes states by
// 1e-2 and more; see the last case.
constexpr double worse_order = 2.5;
// What 6 layers of some 12 roundings each, u = 6e-8 and sums off by up to sqrt(64 / 2) u, may do in
// float32: sqrt(72) * 5.7 * 6e-8 = 3e-6. Expectations that are farther apart are no reference.
constexpr double float32_error = 3e-6;

// Relative L2 distance from `want` [T, width] of rows `stride` apart: T of them, then the first
// ones once more, `rows` in all.
template <class T>
double distance(const T* got, std::int64_t stride, const TensorView& want, std::int64_t rows) {
    double error = 0, norm = 0;
    const auto w = want.as<double>();
    const auto width = want.shape[1];
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t j = 0; j < width; ++j) {
            const double v = w[static_cast<std::size_t>(r % want.shape[0] * width + j)];
            const double d = static_cast<double>(static_cast<float>(got[r * stride + j])) - v;
            error += d * d;
            norm += v * v;
        }
    return std::sqrt(error / norm);
}

struct Golden {
    std::filesystem::path dir;
    SafetensorsFile expected;

    explicit Golden(const std::string& name)
        : dir(goldens / name), expected(dir / "expected.safetensors") {}

    TensorView wanted(const std::string& part) const { return expected.at("float64." + part); }
    // How far transformers is off over T rows in P.
    template <class P>
    double theirs(const std::string& part) const {
        const auto t = expected.at(std::string(P::name) + "." + part);
        return distance(t.as<typename P::Element>().data(), t.shape[1], wanted(part), t.shape[0]);
    }
    std::vector<std::int64_t> ids() const {
        const auto all = expected.at("input_ids").as<std::int64_t>();
        return {all.begin(), all.end()};
    }
};

// How far the model's final states are off over the golden's tokens.
double last_distance(const HfWeights& weights, const Golden& golden) {
    TargetModel<Cpu> model(weights, {captured});
    const auto ids = golden.ids();
    const auto states = model.forward(ids);
    return distance(states.last.as<float>().data(), weights.config().hidden_size,
                    golden.wanted("last"), static_cast<std::int64_t>(ids.size()));
}

}  // namespace

// In bfloat16 transformers rounds all that eyas does (weights, and what they are multiplied by),
// and the results of operations, residual streams and norms besides: eyas is off by less.
template <class P>
constexpr double off_by_as_much = std::same_as<P, F32> ? worse_order : 1;
// What 6 layers of some 12 roundings each, by at most 2^-9, may do in bfloat16 where layers err in
// one direction: 6 sqrt(12) 2^-9 = 4e-2.
template <class P>
constexpr double most_error = std::same_as<P, F32> ? float32_error : 4e-2;

TEMPLATE_TEST_CASE("states and logits of every family are as near to float64 as transformers'",
                   "[capture]", F32, Bf16) {
    using P = TestType;
    const std::string name =
        GENERATE("llama2", "llama3_rope", "llama_linear_rope", "llama_biases", "smollm2", "qwen2",
                 "qwen3", "qwen3_biases", "mistral", "mistral_window");
    INFO(name);
    const Golden golden(name);
    const HfWeights weights(golden.dir);
    TargetModel<Cpu, P> model(weights, {captured});
    auto ids = golden.ids();
    // The sequence, and its beginning as another one beside it.
    const std::vector<std::int64_t> lengths{static_cast<std::int64_t>(ids.size()), prefix};
    ids.insert(ids.end(), ids.begin(), ids.begin() + prefix);
    const auto rows = static_cast<std::int64_t>(ids.size());
    const auto states = model.forward(ids, lengths);
    const auto logits = model.logits(states.last);
    const auto check = [&](const std::string& part, const float* got, std::int64_t stride) {
        INFO(part);
        const double theirs = golden.template theirs<P>(part);
        CHECK(theirs > 0);
        CHECK(theirs < most_error<P>);
        const auto ours = distance(got, stride, golden.wanted(part), rows);
        CHECK(ours < off_by_as_much<P> * theirs);
        // One rounding to 8 bits alone is off by 2^-10 / sqrt(3) of a number and more, on average.
        if (std::same_as<P, Bf16>) CHECK(ours > 0x1p-10 / std::sqrt(3));
    };
    const auto width = weights.config().hidden_size;
    const auto count = static_cast<std::int64_t>(captured.size());
    for (std::int64_t c = 0; c < count; ++c)
        check("layer." + std::to_string(captured[static_cast<std::size_t>(c)]),
              states.captured.template as<float>().data() + c * width, count * width);
    check("last", states.last.template as<float>().data(), width);
    check("logits", logits.template as<float>().data(), weights.config().vocab_size);
}

TEST_CASE("a sequence may fill the attention window and not be longer", "[capture]") {
    const Golden golden("mistral_window");
    TargetModel<Cpu> model(HfWeights(golden.dir), {captured});
    auto ids = golden.ids();
    REQUIRE(model.config().sliding_window == static_cast<std::int64_t>(ids.size()));
    CHECK_NOTHROW(model.forward(ids));
    ids.push_back(1);
    CHECK_THROWS_AS(model.forward(ids), DataError);
    CHECK_THROWS_WITH(model.forward(ids), Catch::Contains("input_ids: a sequence of 17 tokens") &&
                                              Catch::Contains("attention window of 16 tokens") &&
                                              Catch::Contains("--max-len"));
}

TEST_CASE("models that eyas read before it knew biases keep their fingerprints", "[capture]") {
    const auto of = [](const char* name) {
        const HfWeights weights(goldens / name);
        return fingerprint(load_target_weights(weights), weights.config());
    };
    CHECK(of("llama2") == "2cfecdca170709da");
    CHECK(of("llama3_rope") == "0ace76eb16e7ab85");
    CHECK(of("llama_linear_rope") == "7a431d10fe276d4b");
    CHECK(of("smollm2") == "d436fad92887b0a9");
}

// The goldens would notice a forward that passed over a part: with the part made neutral, states
// are another model's.
TEST_CASE("biases, norms of heads and scaled ropes matter in the goldens", "[capture]") {
    struct Part {
        const char* model;
        const char* tensors;  // what their names end in; nullptr: the rope
        double neutral = 0;
    };
    const auto part =
        GENERATE(Part{"llama_biases", "q_proj.bias"}, Part{"llama_biases", "k_proj.bias"},
                 Part{"llama_biases", "v_proj.bias"}, Part{"llama_biases", "o_proj.bias"},
                 Part{"llama_biases", "gate_proj.bias"}, Part{"llama_biases", "up_proj.bias"},
                 Part{"llama_biases", "down_proj.bias"}, Part{"qwen2", "q_proj.bias"},
                 Part{"qwen2", "k_proj.bias"}, Part{"qwen2", "v_proj.bias"},
                 Part{"qwen3", "q_norm.weight", 1}, Part{"qwen3", "k_norm.weight", 1},
                 Part{"qwen3_biases", "o_proj.bias"}, Part{"llama3_rope", nullptr},
                 Part{"llama_linear_rope", nullptr});
    INFO(part.model << " " << (part.tensors ? part.tensors : "rope_scaling"));
    const Golden golden(part.model);
    const HfWeights original(golden.dir);
    RewrittenModel other(original);
    if (part.tensors)
        CHECK(other.fill(part.tensors, part.neutral) == original.config().num_hidden_layers);
    else
        other.config["rope_scaling"] = nullptr;
    const test::ScratchDirectory dir;
    other.write(dir.path());
    const HfWeights changed(dir.path());
    CHECK(last_distance(changed, golden) > 1e-2);
    if (part.tensors)  // not by the config, which is the same
        CHECK(fingerprint(load_target_weights(changed), original.config()) !=
              fingerprint(load_target_weights(original), original.config()));
}
