// What a target's directory may not hold, and what the errors say.
#include <catch2/catch.hpp>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "eyas/capture/target_weights.hpp"
#include "tests/capture/rewritten_model.hpp"
#include "tests/capture/tiny_llama.hpp"

using namespace eyas;
using eyas::test::RewrittenModel;
using eyas::test::ScratchDirectory;

namespace {

const std::filesystem::path goldens = "tests/goldens/target_family";
constexpr auto config_file = "target model's config.json: ";

// Of a golden model with a change: the error that it is refused with.
void refused(const std::string& name, const std::function<void(RewrittenModel&)>& change,
             const std::string& where_and_what, const std::string& remedy) {
    RewrittenModel model{HfWeights(goldens / name)};
    change(model);
    const ScratchDirectory dir;
    model.write(dir.path());
    INFO(name);
    CHECK_THROWS_AS(load_target_weights(HfWeights(dir.path())), DataError);
    CHECK_THROWS_WITH(load_target_weights(HfWeights(dir.path())),
                      Catch::Contains(where_and_what) && Catch::Contains(remedy));
}

// The same with one key of the config changed.
void refused(const std::string& name, const char* key, const Json& value,
             const std::string& where_and_what, const std::string& remedy) {
    refused(
        name, [&](RewrittenModel& m) { m.config[key] = value; }, where_and_what, remedy);
}

void loads(const std::string& name, const std::function<void(RewrittenModel&)>& change) {
    RewrittenModel model{HfWeights(goldens / name)};
    change(model);
    const ScratchDirectory dir;
    model.write(dir.path());
    CHECK_NOTHROW(load_target_weights(HfWeights(dir.path())));
}

const std::string belongs = "Use the config.json that belongs to these weights";
const std::string layer = "model.layers.2.";

ModelConfig parsed(Json extra) {
    Json json{{"hidden_size", 8},       {"intermediate_size", 8}, {"num_attention_heads", 2},
              {"num_hidden_layers", 4}, {"vocab_size", 9},        {"max_position_embeddings", 64}};
    json.update(extra);
    return parse_model_config(json, "config.json");
}
std::optional<std::int64_t> window(Json extra) { return parsed(std::move(extra)).sliding_window; }

}  // namespace

TEST_CASE("a config whose forward would be another one is refused", "[capture]") {
    refused("llama2", "model_type", "gpt_neox",
            std::string(config_file) + "model_type 'gpt_neox' is not supported",
            "Use a model of type llama, mistral, qwen2 or qwen3");
    refused("llama2", "model_type", 3, "key 'model_type' has the wrong type: 3",
            "Correct the value");
    for (const char* type : {"dynamic", "yarn", "mrope"})
        refused("qwen2", "rope_scaling", {{"rope_type", type}, {"factor", 2.0}},
                std::string(config_file) + "rope type '" + type + "' is not supported for a target",
                "Use a model with default, linear or llama3 rope");
    refused("llama2", "rope_theta", 0.0, "rope_theta is 0", "Give a positive number");
    refused("llama_linear_rope", "rope_scaling", {{"rope_type", "linear"}},
            std::string(config_file) + "key 'factor' is missing", "Write the file again with it");
    refused("llama_linear_rope", "rope_scaling", {{"rope_type", "linear"}, {"factor", -1.0}},
            "factor is -1", "Give a positive number");
    for (const char* key :
         {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"})
        refused(
            "llama3_rope", [&](RewrittenModel& m) { m.config["rope_scaling"][key] = 0; },
            std::string(config_file) + key + " is 0", "Give a positive number");
    const auto whole = "Use a model that rotates whole heads";
    refused("llama2", "partial_rotary_factor", 0.5,
            std::string(config_file) + "partial_rotary_factor is not 1", whole);
    refused("llama2", "rope_parameters",
            {{"rope_type", "default"}, {"partial_rotary_factor", 0.25}},
            "partial_rotary_factor is not 1", whole);
    refused("llama2", "quantization_config", {{"quant_method", "fp8"}},
            std::string(config_file) + "the weights are quantised (quantization_config)",
            "Use the model in bfloat16, float16 or float32");
    refused("llama2", "hidden_act", "gelu", "hidden_act 'gelu' is not supported", "Use silu");
}

TEST_CASE("a weight that the config implies must be there", "[capture]") {
    const auto absent = [](const std::string& name, const std::string& tensor,
                           const std::string& type) {
        refused(
            name, [&](RewrittenModel& m) { REQUIRE(m.tensors.erase(tensor) == 1); },
            "no tensor '" + tensor + "', which a " + type + " of this config has", belongs);
    };
    for (const char* part :
         {"input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight",
          "self_attn.v_proj.weight", "self_attn.o_proj.weight", "post_attention_layernorm.weight",
          "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"})
        absent("mistral", layer + part, "mistral");
    for (const char* name : {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"})
        absent("llama2", name, "llama");
    for (const char* part : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
        const auto bias = layer + "self_attn." + part + ".bias";
        absent("llama_biases", bias, "llama");
        absent("qwen3_biases", bias, "qwen3");
        if (part != std::string("o_proj")) absent("qwen2", bias, "qwen2");
    }
    for (const char* part : {"gate_proj", "up_proj", "down_proj"})
        absent("llama_biases", layer + "mlp." + part + ".bias", "llama");
    for (const char* part : {"q_norm", "k_norm"})
        absent("qwen3", layer + "self_attn." + part + ".weight", "qwen3");
    refused("llama2", "attention_bias", true,
            "no tensor 'model.layers.0.self_attn.q_proj.bias', which a llama of this config has",
            belongs);
    refused("llama2", "mlp_bias", true, "no tensor 'model.layers.0.mlp.gate_proj.bias'", belongs);
    refused("llama2", "model_type", "qwen2", "self_attn.q_proj.bias', which a qwen2", belongs);
    refused("llama2", "model_type", "qwen3", "self_attn.q_norm.weight', which a qwen3", belongs);
    refused("llama2", "num_hidden_layers", 7, "no tensor 'model.layers.6.input_layernorm.weight'",
            belongs);
}

TEST_CASE("a tensor that the forward would pass over is refused", "[capture]") {
    const auto passed_over = [](const std::string& name, const char* key, const Json& value,
                                const std::string& tensor, const std::string& type) {
        refused(name, key, value,
                "tensor '" + tensor + "' has no place in a " + type + " of this config", belongs);
    };
    const std::string first = "model.layers.0.";
    passed_over("llama_biases", "attention_bias", false, first + "self_attn.k_proj.bias", "llama");
    passed_over("llama_biases", "mlp_bias", false, first + "mlp.down_proj.bias", "llama");
    passed_over("qwen2", "model_type", "llama", first + "self_attn.k_proj.bias", "llama");
    passed_over("qwen3_biases", "attention_bias", false, first + "self_attn.k_proj.bias", "qwen3");
    passed_over("qwen3", "model_type", "llama", first + "self_attn.k_norm.weight", "llama");
    passed_over("mistral", "num_hidden_layers", 5, "model.layers.5.input_layernorm.weight",
                "mistral");
    for (const char* extra : {"model.layers.1.self_attn.sinks", "score.weight", "lm_head.bias"}) {
        const auto add = [&](RewrittenModel& m) {
            m.tensors.emplace(extra, Tensor::zeros(DType::F32, {4}));
        };
        refused("llama2", add, "tensor '" + std::string(extra) + "' has no place in a llama",
                belongs);
    }
    loads("llama2", [](RewrittenModel& m) {  // follows from the config; older programs stored it
        m.tensors.emplace("model.layers.1.self_attn.rotary_emb.inv_freq",
                          Tensor::zeros(DType::F32, {4}));
    });
}

TEST_CASE("a tied head that is stored must be the embedding", "[capture]") {
    const auto store_head = [](RewrittenModel& m) -> Tensor& {
        const auto& embedding = m.tensors.at("model.embed_tokens.weight");
        return m.tensors.emplace("lm_head.weight", Tensor::copy_of(embedding)).first->second;
    };
    loads("qwen2", store_head);
    const auto what =
        "lm_head.weight: is not model.embed_tokens.weight, though "
        "tie_word_embeddings is true";
    const auto remedy = "Correct the config, or remove the tensor";
    refused(
        "qwen2", [&](RewrittenModel& m) { store_head(m).as<BFloat16>()[7] = BFloat16(3.f); }, what,
        remedy);
    refused(
        "qwen2",
        [&](RewrittenModel& m) {
            const auto shape = store_head(m).shape();
            m.tensors["lm_head.weight"] = Tensor::zeros(DType::F16, shape);
        },
        what, remedy);
    refused("llama2", "tie_word_embeddings", true, what, remedy);
}

TEST_CASE("weights of another shape or type are refused before memory is taken", "[capture]") {
    const auto replaced = [](const std::string& tensor, DType dtype, const Shape& shape,
                             const std::string& what, const std::string& remedy) {
        refused(
            "qwen3", [&](RewrittenModel& m) { m.tensors.at(tensor) = Tensor::zeros(dtype, shape); },
            what, remedy);
    };
    const auto norm = layer + "self_attn.q_norm.weight";
    replaced(norm, DType::BF16, {64}, norm + ": shape [64], but the config says [16]", belongs);
    replaced(norm, DType::BF16, {1, 16}, norm + ": shape [1, 16], but the config says [16]",
             belongs);
    for (const auto dtype : {DType::F8E4M3, DType::I8, DType::F64})
        replaced(norm, dtype, {16}, norm + ": dtype " + std::string(name_of(dtype)),
                 "Convert the model to bfloat16, float16 or float32");
    refused("llama_biases", "intermediate_size", 44,
            "model.layers.0.mlp.gate_proj.weight: shape [40, 32], but the config says [44, 32]",
            belongs);
    refused("llama2", "vocab_size", std::int64_t{1} << 31,
            "model.embed_tokens.weight: shape [96, 32], but the config says [2147483648, 32]",
            belongs);
    refused("qwen3", "head_dim", nullptr,  // 128 where a qwen3 does not say
            "self_attn.q_proj.weight: shape [64, 32], but the config says [512, 32]", belongs);
}

TEST_CASE("attention windows are read by each model type's rules", "[capture]") {
    CHECK(window({{"model_type", "mistral"}, {"sliding_window", 12}}) == 12);
    CHECK(window({{"model_type", "mistral"}}) == 4096);
    CHECK(window({{"model_type", "mistral"}, {"sliding_window", nullptr}}) == std::nullopt);
    CHECK(window({{"model_type", "llama"}, {"sliding_window", 12}}) == std::nullopt);
    for (const char* type : {"qwen2", "qwen3"}) {
        const auto with = [&](Json extra) {
            extra["model_type"] = type;
            extra["sliding_window"] = 12;
            return extra;
        };
        const Json used{{"use_sliding_window", true}};
        const auto and_used = [&](Json extra) {
            extra.update(used);
            return with(extra);
        };
        CHECK(window(with(Json::object())) == std::nullopt);
        CHECK(window(with({{"use_sliding_window", false}})) == std::nullopt);
        CHECK(window(with(used)) == std::nullopt);  // from layer 28 on: of 4, none
        CHECK(window(and_used({{"max_window_layers", 3}})) == 12);
        CHECK(window(and_used({{"max_window_layers", 4}})) == std::nullopt);
        const Json full = "full_attention", sliding = "sliding_attention";
        CHECK(window(and_used({{"layer_types", {full, sliding}}})) == 12);
        CHECK(window(and_used({{"layer_types", {full, full}}, {"max_window_layers", 0}})) ==
              std::nullopt);
        CHECK_THROWS_WITH(window(with({{"layer_types", {full, sliding}}})),
                          Catch::Contains("layer_types has sliding_attention, use_sliding_window "
                                          "is false") &&
                              Catch::Contains("Make them agree"));
    }
    CHECK_THROWS_WITH(window({{"layer_types", {"linear_attention"}}}),
                      Catch::Contains("config.json: layer type 'linear_attention' is not "
                                      "supported") &&
                          Catch::Contains("Use a model of full_attention"));
    for (const std::int64_t bad : {0, -1})
        CHECK_THROWS_WITH(
            window({{"model_type", "mistral"}, {"sliding_window", bad}}),
            Catch::Contains("config.json: sliding_window is " + std::to_string(bad)) &&
                Catch::Contains("Write null or a positive number of tokens"));
    CHECK_THROWS_WITH(window({{"model_type", "mistral"}, {"sliding_window", "wide"}}),
                      Catch::Contains("key 'sliding_window' has the wrong type"));
}

TEST_CASE("a sequence is no longer than positions and window allow", "[capture]") {
    const auto plain = parsed({{"model_type", "mistral"}, {"sliding_window", nullptr}});
    CHECK(longest_sequence(plain) == 64);
    CHECK_NOTHROW(check_sequence_length(plain, 64));
    CHECK_THROWS_AS(check_sequence_length(plain, 65), DataError);
    CHECK_THROWS_WITH(check_sequence_length(plain, 65),
                      Catch::Contains("input_ids: a sequence of 65 tokens") &&
                          Catch::Contains("Cut it to the model's 64 positions (--max-len)"));
    const auto narrow = parsed({{"model_type", "mistral"}, {"sliding_window", 12}});
    CHECK(longest_sequence(narrow) == 12);
    CHECK_NOTHROW(check_sequence_length(narrow, 12));
    CHECK_THROWS_WITH(
        check_sequence_length(narrow, 13),
        Catch::Contains("input_ids: a sequence of 13 tokens") &&
            Catch::Contains("Cut it to the model's attention window of 12 tokens (--max-len)"));
    CHECK(longest_sequence(parsed({{"model_type", "mistral"}})) == 64);  // wider than positions
}

TEST_CASE("a tensor in two shards is refused", "[capture]") {
    const ScratchDirectory dir;
    const auto source = goldens / "qwen3_biases";
    std::filesystem::copy(source, dir.path(), std::filesystem::copy_options::recursive);
    CHECK_NOTHROW(load_target_weights(HfWeights(dir.path())));
    const auto one = Tensor::zeros(DType::F32, {1});
    const std::vector<NamedTensor> more{{"model.norm.weight", one.view()}, {"more", one.view()}};
    write_safetensors(dir.path() / "more.safetensors", more, {}, {.durable = false});
    auto index = read_json_file(dir.path() / "model.safetensors.index.json");
    index["weight_map"]["more"] = "more.safetensors";
    write_text_file(dir.path() / "model.safetensors.index.json", index.dump());
    CHECK_THROWS_AS(HfWeights(dir.path()), DataError);
    CHECK_THROWS_WITH(HfWeights(dir.path()),
                      Catch::Contains("tensor 'model.norm.weight' is in model-0000") &&
                          Catch::Contains("Copy the model again"));
}
