#include <algorithm>
#include <catch2/catch.hpp>

#include "eyas/checkpoint/export.hpp"
#include "tests/checkpoint/run_directory.hpp"

using namespace eyas;
using test::RunDirectory;

namespace {
const std::filesystem::path data = "tests/checkpoint/testdata";

void check_same_tensors(const std::filesystem::path& ours, const std::filesystem::path& theirs) {
    const SafetensorsFile a(ours), b(theirs);
    CHECK(a.metadata() == b.metadata());
    REQUIRE(a.tensors().size() == b.tensors().size());
    for (std::size_t i = 0; i < a.tensors().size(); ++i) {
        const auto &x = a.tensors()[i], &y = b.tensors()[i];
        INFO(y.name);
        CHECK(x.name == y.name);
        CHECK(x.tensor.dtype == y.tensor.dtype);
        CHECK(x.tensor.shape == y.tensor.shape);
        CHECK(std::ranges::equal(x.tensor.bytes(), y.tensor.bytes()));
    }
}
}  // namespace

TEST_CASE("exports equal the reference's, tensor by tensor and key by key") {
    const std::string variant = GENERATE("plain", "llama3_headdim");
    INFO(variant);
    const RunDirectory out("export");
    const auto dir = data / variant;
    const auto config = read_model_config(dir / "draft_config.json");
    const SafetensorsFile draft(dir / "checkpoint" / "draft_state_dict.safetensors");
    const SafetensorsFile target(dir / "checkpoint" / "target_model.safetensors");
    export_draft(out.path() / "sglang", draft.tensors(), config, {}, "checkpoint");
    export_draft(out.path() / "hf/", draft.tensors(), config,
                 {ExportLayout::HuggingFace, target.at("model.embed_tokens.weight")}, "checkpoint");
    for (const char* layout : {"sglang", "hf"}) {
        check_same_tensors(out.path() / layout / "model.safetensors",
                           dir / layout / "model.safetensors");
        CHECK(read_json_file(out.path() / layout / "config.json") ==
              read_json_file(dir / layout / "config.json"));
    }
}

TEST_CASE("a float32 draft is rounded, a config made in code is whole") {
    const RunDirectory out("export32");
    const SafetensorsFile draft(data / "plain" / "checkpoint" / "draft_state_dict.safetensors");
    auto config = read_model_config(data / "plain" / "draft_config.json");
    config.source = Json::object();
    std::vector<Tensor> wide;
    std::vector<NamedTensor> tensors;
    for (const auto& t : draft.tensors()) {
        if (t.tensor.dtype == DType::BF16) {
            wide.emplace_back(DType::F32, t.tensor.shape);
            convert_into(t.tensor, wide.back().mutable_view());
            tensors.push_back({t.name, wide.back().view()});
        } else {
            tensors.push_back(t);
        }
    }
    export_draft(out.path() / "a", tensors, config, {}, "memory");
    check_same_tensors(out.path() / "a" / "model.safetensors",
                       data / "plain" / "sglang" / "model.safetensors");
    const auto ours = read_json_file(out.path() / "a" / "config.json");
    const auto theirs = read_json_file(data / "plain" / "sglang" / "config.json");
    for (const auto& [key, value] : theirs.items()) {
        INFO(key);
        if (key != "bos_token_id" && key != "eos_token_id" && key != "pad_token_id")
            CHECK(ours.value(key, Json("absent")) == value);
    }
}

TEST_CASE("a newer config's rope_parameters reach older readers") {
    auto config = read_model_config(data / "plain" / "draft_config.json");
    config.source["rope_scaling"] = nullptr;
    config.source["rope_parameters"] = {
        {"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 5000.0}};
    const auto j = serving_config(config);
    CHECK(j["rope_theta"] == 5000.0);
    CHECK(j["rope_scaling"] == Json{{"rope_type", "linear"}, {"factor", 2.0}});
}

TEST_CASE("what would be a broken draft is refused") {
    const RunDirectory out("refused");
    const auto config = read_model_config(data / "plain" / "draft_config.json");
    const SafetensorsFile draft(data / "plain" / "checkpoint" / "draft_state_dict.safetensors");
    auto tensors = draft.tensors();
    SECTION("no embedding for the whole layout") {
        CHECK_THROWS_WITH(export_draft(out.path() / "a", tensors, config,
                                       {ExportLayout::HuggingFace, std::nullopt}, "x"),
                          Catch::Contains("embed_tokens"));
    }
    SECTION("a tensor is missing") {
        std::erase_if(tensors, [](const NamedTensor& t) { return t.name == "lm_head.weight"; });
        CHECK_THROWS_WITH(export_draft(out.path() / "a", tensors, config, {}, "x"),
                          Catch::Contains("lm_head.weight"));
    }
    SECTION("the config is another draft's") {
        auto other = config;
        other.draft_vocab_size = 50;
        CHECK_THROWS_WITH(export_draft(out.path() / "a", tensors, other, {}, "x"),
                          Catch::Contains("[50, 32]"));
    }
    SECTION("the directory is a file, or another model's") {
        eyas::create_directories(out.path());
        write_text_file(out.path() / "file", "words");
        CHECK_THROWS_WITH(export_draft(out.path() / "file", tensors, config, {}, "x"),
                          Catch::Contains("something else than a directory"));
        CHECK(read_text_file(out.path() / "file") == "words");
        eyas::create_directories(out.path() / "llama");
        write_text_file(out.path() / "llama" / "model.safetensors", "weights");
        write_text_file(out.path() / "llama" / "config.json",
                        R"({"architectures": ["LlamaForCausalLM"]})");
        CHECK_THROWS_WITH(export_draft(out.path() / "llama", tensors, config, {}, "x"),
                          Catch::Contains("no exported draft"));
        CHECK(read_text_file(out.path() / "llama" / "model.safetensors") == "weights");
    }
    SECTION("the directory is another's EAGLE3 draft, of the same two files") {
        eyas::create_directories(out.path() / "draft");
        for (const char* name : {"model.safetensors", "config.json"})
            std::filesystem::copy_file(data / "plain" / "sglang" / name,
                                       out.path() / "draft" / name);
        CHECK_THROWS_WITH(export_draft(out.path() / "draft", tensors, config, {}, "x"),
                          Catch::Contains("no exported draft"));
        check_same_tensors(out.path() / "draft" / "model.safetensors",
                           data / "plain" / "sglang" / "model.safetensors");
    }
    SECTION("the directory is an export: it is replaced, unless somebody changed it") {
        const auto dir = out.path() / "ours";
        export_draft(dir, tensors, config, {}, "x");
        export_draft(dir, tensors, config, {}, "x");
        write_text_file(dir / "config.json", read_text_file(dir / "config.json") + "\n");
        CHECK_THROWS_WITH(export_draft(dir, tensors, config, {}, "x"),
                          Catch::Contains("was changed since"));
    }
    SECTION("the directory holds something else") {
        eyas::create_directories(out.path() / "a");
        write_text_file(out.path() / "a" / "thesis.txt", "words");
        CHECK_THROWS_WITH(export_draft(out.path() / "a", tensors, config, {}, "x"),
                          Catch::Contains("thesis.txt"));
        CHECK(std::filesystem::exists(out.path() / "a" / "thesis.txt"));
        return;
    }
    CHECK_FALSE(std::filesystem::exists(out.path() / "a"));
}

TEST_CASE("the newer spelling of rope is read, and must agree with the older one") {
    auto json = read_json_file(data / "plain" / "draft_config.json");
    json.erase("rope_theta");
    json.erase("rope_scaling");
    json["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 5000.0}};
    const auto config = parse_model_config(json, "x");
    CHECK(config.rope_theta == 5000.0);
    CHECK(config.rope_scaling.type == "linear");
    json["rope_theta"] = 10000.0;
    CHECK_THROWS_WITH(parse_model_config(json, "x"), Catch::Contains("make them agree"));
    json["rope_theta"] = 5000.0;
    for (const auto& other : {Json{{"rope_type", "dynamic"}, {"factor", 2.0}},
                              Json{{"rope_type", "linear"}, {"factor", 4.0}}}) {
        json["rope_scaling"] = other;
        CHECK_THROWS_WITH(parse_model_config(json, "x"), Catch::Contains("make them agree"));
    }
    json["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
    CHECK(parse_model_config(json, "x").rope_theta == 5000.0);
    json.erase("rope_scaling");
    json["rope_parameters"] = {{"full_attention", {{"rope_theta", 5000.0}}}};
    CHECK_THROWS_WITH(parse_model_config(json, "x"), Catch::Contains("kind of layer"));
}

TEST_CASE("writers of other names in one directory do not disturb each other") {
    const RunDirectory run("neighbours");
    AtomicDirectory first(run.path(), "checkpoint-1");
    write_text_file(first.path() / "a", "mine");
    {
        AtomicDirectory second(run.path(), "export");
        write_text_file(second.path() / "b", "theirs");
        second.commit();
    }
    first.commit();
    CHECK(read_text_file(run.path() / "checkpoint-1" / "a") == "mine");
    CHECK(read_text_file(run.path() / "export" / "b") == "theirs");
    AtomicDirectory again(run.path(), "export");
    write_text_file(again.path() / "c", "newer");
    CHECK(std::filesystem::exists(run.path() / "export" / "b"));  // until the commit
    again.commit();
    CHECK_FALSE(std::filesystem::exists(run.path() / "export" / "b"));
    CHECK(read_text_file(run.path() / "export" / "c") == "newer");

    // A writer killed between its two renames, where names cannot be exchanged.
    std::filesystem::rename(run.path() / "export", run.path() / ".eyas-discard-old-export");
    { AtomicDirectory next(run.path(), "export"); }
    CHECK(read_text_file(run.path() / "export" / "c") == "newer");
}
