#include "eyas/evaluate/verify_export.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <map>

#include "eyas/checkpoint/checkpoint.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/device/precision.hpp"
#include "eyas/evaluate/check_batches.hpp"
#include "eyas/model/eagle3.hpp"
#include "tests/capture/tiny_llama.hpp"

using namespace eyas;
using Catch::Matchers::Contains;

namespace {
using Model = Eagle3<Cpu, F32>;
const std::vector<std::int64_t> layers{0, 2, 4};

/// Every third token: ids 0, 3, 6, …
VocabMap some_map(std::int64_t vocab, std::int64_t every = 3) {
    VocabMap map;
    for (std::int64_t v = 0; v < vocab; ++v) map.t2d.push_back(v % every == 0);
    for (std::int64_t d = 0; d * every < vocab; ++d) map.d2t.push_back(d * (every - 1));
    return map;
}

/// A target, a checkpoint of a draft for it, and that one's export.
struct Fixture {
    explicit Fixture(bool with_convention = true, ExportLayout layout = ExportLayout::HuggingFace) {
        test::TinyLlama().write(dir.path() / "target");
        target.emplace(dir.path() / "target");
        auto json = test::TinyLlama().config();
        json["num_hidden_layers"] = 1;
        json["draft_vocab_size"] = 17;
        json["tie_word_embeddings"] = false;
        auto config = parse_model_config(json, "draft");
        if (with_convention) record_convention(config, convention());
        Model model(config, {.ttt_length = 2}, some_map(50), FrozenTarget::of(*target), 3);
        checkpoint = save_checkpoint(
            dir.path() / "run", {model.parameters(), model.vocab_map(), model.config(), {}}, {});
        export_checkpoint(out, checkpoint,
                          {layout, layout == ExportLayout::HuggingFace
                                       ? std::optional(FrozenTarget::of(*target).embed_tokens)
                                       : std::nullopt});
    }

    CaptureConvention convention() const {
        return {.target_id = "tiny",
                .target = fingerprint(load_target_weights(*target), target->config()),
                .layers = layers,
                .vocab_size = 50,
                .hidden_size = 20};
    }

    /// Name of check to its text; "" in front of what is good is not there, "BAD " is.
    std::map<std::string, std::string> verify() {
        const ExportVerification v{out, checkpoint, *target, {.ttt_length = 2}};
        auto checks = verify_export_files(v);
        int n = 0;
        std::unique_ptr<OwnedBatch> batch;
        checks.push_back(verify_export_logits<Model>(v, [&]() -> const Batch* {
            if (n++ == 3) return nullptr;
            batch = random_states(target->config(), 9, static_cast<std::uint64_t>(n));
            return &batch->batch();
        }));
        std::map<std::string, std::string> all;
        for (const auto& c : checks) all[c.name] = (c.good ? "" : "BAD ") + c.text;
        return all;
    }

    /// Writes model.safetensors anew with what `change` makes of its tensors.
    void rewrite(const std::function<void(std::vector<NamedTensor>&)>& change) {
        const auto path = out / "model.safetensors";
        const SafetensorsFile old(path);
        auto tensors = old.tensors();
        change(tensors);
        write_safetensors(path, tensors, {{"format", "pt"}});
    }
    void reconfigure(const std::function<void(Json&)>& change) {
        auto j = read_json_file(out / "config.json");
        change(j);
        write_text_file(out / "config.json", j.dump());
    }

    test::ScratchDirectory dir;
    std::filesystem::path out = dir.path() / "export", checkpoint;
    std::optional<HfWeights> target;
};

bool bad(const std::string& text) { return text.starts_with("BAD "); }

NamedTensor& named(std::vector<NamedTensor>& tensors, const std::string& name) {
    return *std::ranges::find(tensors, name, &NamedTensor::name);
}
}  // namespace

TEST_CASE("an export is its checkpoint, by every check") {
    const auto layout = GENERATE(ExportLayout::Sglang, ExportLayout::HuggingFace);
    const bool told = GENERATE(true, false);
    Fixture f(told, layout);
    const auto checks = f.verify();
    CHECK(checks.size() == 8);
    for (const auto& [name, text] : checks) {
        INFO(name << ": " << text);
        CHECK_FALSE(bad(text));
    }
    CHECK_THAT(checks.at("logits"), Contains("54 rows of 17 logits"));  // 3 samples, 9 rows, K = 2
    CHECK_THAT(checks.at("config"), Contains(told ? "layers [0,2,4]" : "does not say"));
}

TEST_CASE("the config tells each engine its layers, where they are known") {
    const Fixture told, silent(false);
    const auto j = read_json_file(told.out / "config.json");
    CHECK(j["architectures"] == Json{"LlamaForCausalLMEagle3"});
    CHECK(j["eagle_config"] ==
          Json{{"eagle_aux_hidden_state_layer_ids", {0, 2, 4}}, {"use_aux_hidden_state", true}});
    CHECK(j["eagle_aux_hidden_state_layer_ids"] == Json{1, 3, 5});  // vLLM: the layer after it
    CHECK(configured_layers(j, "x") == layers);
    CHECK(j["eyas"]["capture"] == Json(convention_to_json(told.convention())));
    CHECK(j["eyas"]["vocab_map"] == vocab_map_hash(some_map(50)));
    const auto none = read_json_file(silent.out / "config.json");
    for (const char* key : {"eagle_config", "eagle_aux_hidden_state_layer_ids", "eyas"})
        CHECK_FALSE(none.contains(key));
    // A config that asks for other layers is not exported.
    auto config = read_model_config(told.checkpoint / "config.json");
    config.source["eagle_config"] = {{"eagle_aux_hidden_state_layer_ids", {1, 2, 4}}};
    CHECK_THROWS_WITH(serving_config(config), Contains("[1,2,4]") && Contains("[0,2,4]"));
}

TEST_CASE("a flipped bit of a weight is found and named") {
    Fixture f;
    f.rewrite([](auto& tensors) {
        static std::vector<std::byte> bytes;
        auto& t = named(tensors, "fc.weight").tensor;
        bytes.assign(t.bytes().begin(), t.bytes().end());
        bytes[2 * 77] ^= std::byte{1};
        t.data = bytes.data();
    });
    const auto checks = f.verify();
    CHECK_THAT(checks.at("files"), Contains("changed since"));
    CHECK_THAT(checks.at("weights"), Contains("BAD") && Contains("fc.weight: element 77"));
    CHECK(bad(checks.at("logits")));
    for (const char* good : {"import", "target", "vocabulary map", "embedding", "config"})
        CHECK_FALSE(bad(checks.at(good)));
}

TEST_CASE("another map is found: one that is good in itself, and one that is none") {
    Fixture f;
    SECTION("of other tokens") {
        auto other = some_map(50);
        other.d2t.back() += 1;  // 49 instead of 48
        other.t2d[48] = 0, other.t2d[49] = 1;
        f.rewrite([&](auto& tensors) {
            named(tensors, "d2t").tensor.data =
                reinterpret_cast<const std::byte*>(other.d2t.data());
            named(tensors, "t2d").tensor.data =
                reinterpret_cast<const std::byte*>(other.t2d.data());
        });
        const auto checks = f.verify();
        CHECK_THAT(checks.at("vocabulary map"),
                   Contains("BAD") && Contains("draft id 16 is target id 49") && Contains("48"));
        CHECK_THAT(checks.at("config"), Contains("BAD") && Contains("vocab_map"));
    }
    SECTION("that t2d does not agree with") {
        auto d2t = some_map(50).d2t;
        d2t[3] += 1;
        f.rewrite([&](auto& tensors) {
            named(tensors, "d2t").tensor.data = reinterpret_cast<const std::byte*>(d2t.data());
        });
        const auto checks = f.verify();
        CHECK_THAT(checks.at("import"), Contains("BAD") && Contains("d2t and t2d disagree"));
        CHECK_THAT(checks.at("logits"), Contains("BAD") && Contains("d2t and t2d disagree"));
    }
}

TEST_CASE("a config that misleads an engine is found") {
    Fixture f;
    const auto config_says = [&](const std::function<void(Json&)>& change, const char* what) {
        const auto before = read_text_file(f.out / "config.json");
        f.reconfigure(change);
        const auto checks = f.verify();
        write_text_file(f.out / "config.json", before);
        INFO(what << " in " << checks.at("config"));
        CHECK_THAT(checks.at("config"), Contains("BAD") && Contains(what));
        CHECK(bad(checks.at("files")));
    };
    config_says(
        [](Json& j) {
            j["eagle_config"]["eagle_aux_hidden_state_layer_ids"] = {1, 3, 5};
        },
        "eagle_config.eagle_aux_hidden_state_layer_ids");
    config_says(
        [](Json& j) {
            j["eagle_aux_hidden_state_layer_ids"] = {0, 2, 4};
        },
        "eagle_aux_hidden_state_layer_ids");
    config_says([](Json& j) { j["eagle_config"]["use_aux_hidden_state"] = false; },
                "use_aux_hidden_state");
    config_says([](Json& j) { j["architectures"] = {"LlamaForCausalLM"}; }, "architectures");
    config_says([](Json& j) { j["eyas"]["vocab_map"] = "0000000000000000"; }, "vocab_map");
    config_says([](Json& j) { j["eyas"]["capture"]["target"] = "0000000000000000"; }, "target");
    config_says([](Json& j) { j.erase("eyas"); }, "does not say");
    config_says([](Json& j) { j["rope_theta"] = 20000.0; }, "rope_theta");
    config_says([](Json& j) { j["rms_norm_eps"] = 1e-6; }, "rms_norm_eps");
}

TEST_CASE("another embedding, another target, other tensors are found") {
    Fixture f;
    SECTION("a random embedding") {
        Tensor random(DType::BF16, {50, 20});
        std::mt19937 generator(5);
        for (auto& v : random.as<BFloat16>())
            v = BFloat16(static_cast<float>(generator() % 100) / 50.f);
        f.rewrite(
            [&](auto& tensors) { named(tensors, "embed_tokens.weight").tensor = random.view(); });
        CHECK_THAT(f.verify().at("embedding"),
                   Contains("BAD") && Contains("not the target's, first at token 0"));
    }
    SECTION("a target of other weights") {
        test::TinyLlama(true, 7).write(f.dir.path() / "other");
        f.target.emplace(f.dir.path() / "other");
        const auto checks = f.verify();
        CHECK_THAT(checks.at("target"), Contains("BAD") && Contains("'tiny': target: "));
        CHECK(bad(checks.at("embedding")));
    }
    SECTION("a tensor is missing") {
        f.rewrite([](auto& tensors) {
            std::erase_if(tensors, [](const NamedTensor& t) { return t.name == "norm.weight"; });
        });
        const auto checks = f.verify();
        CHECK_THAT(checks.at("weights"), Contains("BAD") && Contains("norm.weight"));
        CHECK(bad(checks.at("logits")));
    }
    SECTION("a tensor too many") {
        f.rewrite([](auto& tensors) {
            auto more = named(tensors, "norm.weight");
            more.name = "midlayer.mlp.bias";
            tensors.push_back(more);
        });
        const auto checks = f.verify();
        CHECK_THAT(checks.at("weights"), Contains("BAD") && Contains("midlayer.mlp.bias"));
        CHECK_THAT(checks.at("logits"), Contains("no place for tensor 'midlayer.mlp.bias'"));
    }
    SECTION("weights in float32: right, but not what was exported") {
        Tensor wide(DType::F32, {20});
        f.rewrite([&](auto& tensors) {
            auto& t = named(tensors, "norm.weight").tensor;
            convert_into(t, wide.mutable_view());
            t = wide.view();
        });
        const auto checks = f.verify();
        CHECK_THAT(checks.at("weights"), Contains("BAD") && Contains("float32 [20]"));
        CHECK_FALSE(bad(checks.at("logits")));
    }
    SECTION("a file that is none") {
        write_text_file(f.out / "model.safetensors", "weights");
        const auto checks = f.verify();
        CHECK(bad(checks.at("import")));
        CHECK(bad(checks.at("logits")));
        CHECK_FALSE(checks.contains("weights"));
    }
}

TEST_CASE("an export of another layout than was asked for is found") {
    Fixture f(true, ExportLayout::Sglang);
    const auto embedding = [&](ExportLayout layout) {
        const auto checks = verify_export_files({f.out, f.checkpoint, *f.target, {}, layout});
        return *std::ranges::find(checks, "embedding", &ExportCheck::name);
    };
    CHECK(embedding(ExportLayout::Sglang).good);
    CHECK_FALSE(embedding(ExportLayout::HuggingFace).good);
    CHECK_THAT(embedding(ExportLayout::HuggingFace).text,
               Contains("embed_tokens.weight is missing"));
}

TEST_CASE("samples that cannot be fetched say nothing about the export") {
    const Fixture f;
    const ExportVerification v{f.out, f.checkpoint, *f.target, {.ttt_length = 2}};
    CHECK_THROWS_AS(verify_export_logits<Model>(v, [] { return nullptr; }), ContractError);
    const auto unreachable = []() -> const Batch* {
        throw TransportError("no answer", "store", "Start it");
    };
    CHECK_THROWS_AS(verify_export_logits<Model>(v, unreachable), TransportError);
}

TEST_CASE("logits are those that the loss compares") {
    // One supervised row, all else not: the loss of step 0 is that row's cross-entropy over T.
    Fixture f;
    const detail::DraftDirectory draft(f.checkpoint);
    Model model(draft.config, {.ttt_length = 1}, draft.map, FrozenTarget::of(*f.target), 0);
    load_weights_into(model, f.checkpoint);
    const auto states = random_states(f.target->config(), 6, 1);
    auto batch = states->batch();
    std::vector<std::int64_t> mask{0, 0, 1, 0, 0, 0};
    batch.loss_mask.data = reinterpret_cast<const std::byte*>(mask.data());
    // The teacher's state is zero: all of its logits are, so its probabilities are equal, over all
    // V tokens, and its token is id 0, which has a draft id.
    const auto logits = model.logits(batch);
    const auto row = logits.as<float>().subspan(2 * 17, 17);
    double sum = 0, mean = 0;
    for (const float x : row) sum += std::exp(static_cast<double>(x));
    for (const float x : row) mean += (std::log(sum) - static_cast<double>(x)) / 17;
    const auto& metrics = model.evaluate(batch);
    REQUIRE(metrics.acceptance_rows[0] == 1);
    // Each of its 17 probabilities is 1/17, since they are scaled to the draft's tokens, and the
    // loss is a mean over 6 rows. In fp32 it is good to 64 roundings: two sums of 17 terms of one
    // sign, an exponential and a product for each.
    const double wanted = mean / 6;
    CHECK(std::abs(metrics.loss[0] - wanted) <= 64 * 0x1p-24 * wanted);
}
