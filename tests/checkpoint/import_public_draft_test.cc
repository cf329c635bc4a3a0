#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <numeric>

#include "eyas/checkpoint/checkpoint.hpp"
#include "eyas/checkpoint/draft_config.hpp"
#include "eyas/checkpoint/draft_convention.hpp"
#include "eyas/checkpoint/draft_weights.hpp"
#include "eyas/sample/vocab_map_io.hpp"
#include "tests/checkpoint/run_directory.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::RunDirectory;

namespace {
const std::filesystem::path data = "tests/checkpoint/testdata";

/// The weights of a model of the shapes that the reference's export has, all zero.
struct Weights {
    Weights() : file(data / "plain/sglang/model.safetensors") {
        for (const auto& t : file.tensors())
            if (t.name != "d2t" && t.name != "t2d") {
                values.push_back(Tensor::zeros(DType::F32, t.tensor.shape));
                parameters.push_back({t.name, values.back().mutable_view(), {}});
            }
    }
    VocabMap map() const { return load_vocab_map(file.path()); }
    void load(const std::filesystem::path& from) { load_weights(from, parameters, map()); }
    /// Each is the export's.
    void check() const {
        for (const auto& p : parameters) {
            INFO(p.name);
            Tensor wide(DType::F32, p.value.shape);
            convert_into(file.at(p.name), wide.mutable_view());
            CHECK(std::ranges::equal(wide.view().bytes(), p.value.bytes()));
        }
    }

    SafetensorsFile file;
    std::vector<Tensor> values;
    std::vector<Parameter> parameters;
};

using Change = std::function<void(std::vector<NamedTensor>&)>;

/// The reference's export with other names or tensors, as safetensors or as torch writes it.
std::filesystem::path written(const RunDirectory& dir, const char* name, const Change& change) {
    const SafetensorsFile reference(data / "plain/sglang/model.safetensors");
    auto tensors = reference.tensors();
    change(tensors);
    const auto path = dir.path() / name;
    eyas::create_directories(dir.path());
    if (path.extension() == ".safetensors")
        write_safetensors(path, tensors);
    else
        write_torch_file(path, std::span<const NamedTensor>(tensors));
    return path;
}

Change renamed(const std::string& around, const std::string& layer) {
    return [=](auto& tensors) {
        for (auto& t : tensors) {
            constexpr std::string_view old = "midlayer.";
            if (t.name.starts_with(old)) t.name = layer + t.name.substr(old.size());
            if (t.name != "lm_head.weight" && t.name != "t2d") t.name = around + t.name;
        }
    };
}

TensorView view_of(const std::vector<std::int64_t>& v) {
    return {reinterpret_cast<const std::byte*>(v.data()),
            DType::I64,
            {static_cast<std::int64_t>(v.size())}};
}

void set(std::vector<NamedTensor>& tensors, const std::string& name, const TensorView& to) {
    std::erase_if(tensors, [&](const NamedTensor& t) { return t.name == name; });
    if (to.data) tensors.push_back({name, to});
}

std::vector<std::int64_t> plain_ids(const VocabMap& map) {
    std::vector<std::int64_t> ids;
    for (std::int64_t d = 0; d < map.draft_vocab_size(); ++d) ids.push_back(map.target_id(d));
    return ids;
}
}  // namespace

TEST_CASE("torch's own state dict in float16, as the EAGLE repository stores it") {
    Weights w;
    w.load(data / "public");  // pytorch_model.bin
    w.check();
    CHECK(DraftWeights(data / "public").vocab_map(128, 48).d2t == w.map().d2t);
    CHECK(read_draft_config(data / "public/config.json").draft_vocab_size == 48);
}

TEST_CASE("the names that programs write lead to the same weights") {
    const RunDirectory dir("names");
    const std::string file = GENERATE("model.safetensors", "pytorch_model.bin");
    const auto [around, layer] =
        GENERATE(table<std::string, std::string>({{"", "midlayer."},
                                                  {"", "layers.0."},
                                                  {"model.", "layers.0."},
                                                  {"model.", "midlayer."},
                                                  {"module.model.", "layers.0."},
                                                  {"draft_model.", "midlayer."}}));
    INFO(file << " " << around << layer);
    written(dir, file.c_str(), renamed(around, layer));
    Weights w;
    w.load(dir.path());
    w.check();
}

TEST_CASE("d2t of offsets or of target ids, of either width, with t2d or without") {
    const RunDirectory dir("maps");
    const Weights w;
    const auto map = w.map();
    const auto ids = plain_ids(map);
    const std::vector<std::int32_t> narrow(map.d2t.begin(), map.d2t.end());
    const TensorView narrow_view{
        reinterpret_cast<const std::byte*>(narrow.data()), DType::I32, {map.draft_vocab_size()}};
    const bool with_t2d = GENERATE(true, false);
    for (const auto& d2t : {view_of(map.d2t), view_of(ids), narrow_view}) {
        const auto path = written(dir, "a.safetensors", [&](auto& tensors) {
            set(tensors, "d2t", d2t);
            if (!with_t2d) set(tensors, "t2d", {});
        });
        const auto read = DraftWeights(path).vocab_map(128, 48);
        CHECK(read.d2t == map.d2t);
        CHECK(read.t2d == map.t2d);
    }
}

TEST_CASE("maps that are none, or could be two") {
    const RunDirectory dir("bad-maps");
    const auto refused = [&](const TensorView& d2t, const TensorView& t2d, const char* what) {
        const auto path = written(dir, "a.safetensors", [&](auto& tensors) {
            set(tensors, "d2t", d2t);
            set(tensors, "t2d", t2d);
        });
        INFO(what);
        CHECK_THROWS_MATCHES(DraftWeights(path).vocab_map(128, 48), DataError,
                             Catch::Predicate<DataError>([&](const DataError& e) {
                                 return std::string(e.what()).find(what) != std::string::npos;
                             }));
    };
    const Weights w;
    const auto map = w.map();
    const TensorView t2d{reinterpret_cast<const std::byte*>(map.t2d.data()), DType::Bool, {128}};
    std::vector<std::int64_t> d2t = map.d2t;
    refused({}, t2d, "d2t is absent");
    refused(view_of({1, 2, 3}), t2d, "int64 [3]");
    refused(w.file.at("norm.weight"), t2d, "bfloat16");
    refused(view_of(d2t), {t2d.data, DType::Bool, {64}}, "bool [64]");
    refused(view_of(d2t), {reinterpret_cast<const std::byte*>(d2t.data()), DType::I64, {48}},
            "t2d is int64");
    d2t[5] = std::numeric_limits<std::int64_t>::max();
    refused(view_of(d2t), t2d, "d2t and t2d disagree");
    refused(view_of(d2t), {}, "no ascending ids");
    d2t[5] = std::numeric_limits<std::int64_t>::min();
    refused(view_of(d2t), {}, "no ascending ids");
    // 0, 1, 2, … are every second token as offsets, and the first 48 as ids.
    std::iota(d2t.begin(), d2t.end(), 0);
    refused(view_of(d2t), {}, "Add t2d");
    const RunDirectory whole("whole");
    const auto path = written(whole, "a.safetensors", [&](auto& tensors) {
        set(tensors, "d2t", {});
        set(tensors, "t2d", {});
    });
    CHECK(DraftWeights(path).vocab_map(48, 48).t2d == std::vector<std::uint8_t>(48, 1));
}

TEST_CASE("weights that are not this draft's are refused, and none is changed") {
    const RunDirectory dir("refused");
    Weights w;
    const auto refused = [&](const Change& change, const char* what) {
        const auto path = written(dir, "a.safetensors", change);
        INFO(what);
        CHECK_THROWS_WITH(w.load(path), Contains(what));
        for (const auto& p : w.parameters)
            CHECK(std::ranges::all_of(p.value.bytes(), [](auto b) { return b == std::byte{0}; }));
    };
    refused([](auto& t) { set(t, "fc.weight", {}); }, "fc.weight");
    refused([&](auto& t) { set(t, "fc.weight", w.file.at("norm.weight")); }, "shape");
    const std::vector<std::int64_t> ones(32, 1);
    refused([&](auto& t) { set(t, "norm.weight", view_of(ones)); }, "int64");
    refused(
        [&](auto& t) {
            t.push_back({"midlayer.mlp.bias", w.file.at("norm.weight")});
        },
        "no place for tensor 'midlayer.mlp.bias'");
    refused(
        [&](auto& t) {
            t.push_back({"layers.1.mlp.up_proj.weight", w.file.at("fc.weight")});
        },
        "layers.1");
    refused(
        [&](auto& t) {
            t.push_back({"model.norm.weight", w.file.at("norm.weight")});
        },
        "two tensors stand for 'norm.weight'");
    refused(
        [&](auto& t) {
            t.push_back({"draft_id_to_target_id", w.file.at("d2t")});
        },
        "two tensors stand for 'd2t'");
    auto map = w.map();
    map.d2t.back() = 127 - 47;
    std::ranges::fill(map.t2d, std::uint8_t{0});
    for (const auto id : plain_ids(map)) map.t2d[static_cast<std::size_t>(id)] = 1;
    if (plain_ids(map) != plain_ids(w.map()))
        refused(
            [&](auto& t) {
                set(t, "d2t", view_of(map.d2t));
                set(t, "t2d",
                    {reinterpret_cast<const std::byte*>(map.t2d.data()), DType::Bool, {128}});
            },
            "the vocabulary map is another one");
    CHECK_THROWS_WITH(w.load(dir.path() / "none"), Contains("none"));
    eyas::create_directories(dir.path() / "empty");
    CHECK_THROWS_WITH(w.load(dir.path() / "empty"), Contains("pytorch_model.bin"));
    write_text_file(dir.path() / "empty/pytorch_model.bin", "\x80\x02ignored");
    CHECK_THROWS_AS(w.load(dir.path() / "empty"), DataError);
}

TEST_CASE("an embedding in the file must be the target's") {
    const RunDirectory dir("embedding");
    const SafetensorsFile target_file(data / "plain/checkpoint/target_model.safetensors");
    const auto target = target_file.at("model.embed_tokens.weight");
    const auto with = [&](const TensorView& embedding) {
        return DraftWeights(written(dir, "a.safetensors", [&](auto& tensors) {
            tensors.push_back({"model.embed_tokens.weight", embedding});
        }));
    };
    Tensor wide(DType::F32, target.shape), narrow(DType::BF16, target.shape);
    convert_into(target, wide.mutable_view());
    convert_into(wide.view(), narrow.mutable_view());
    require_target_embedding(DraftWeights(data / "plain/sglang"), target);  // has none
    require_target_embedding(with(target), target);
    require_target_embedding(with(narrow.view()), wide.view());
    require_target_embedding(with(wide.view()), narrow.view());
    // A thousandth more at token 7: lost in neither.
    auto values = wide.as<float>();
    const auto width = static_cast<std::size_t>(target.shape[1]);
    values[7 * width + 3] += 0.5f;
    CHECK_THROWS_WITH(require_target_embedding(with(wide.view()), target),
                      Contains("first at token 7"));
    CHECK_THROWS_WITH(require_target_embedding(with(target_file.at("lm_head.weight")), target),
                      Contains("embed"));
    CHECK_THROWS_AS(require_target_embedding(with(view_of({1, 2})), target), ContractError);
}

TEST_CASE("configs: nested as speculators write them, and those of other mathematics") {
    const RunDirectory dir("configs");
    eyas::create_directories(dir.path());
    const auto read = [&](const Json& j) {
        write_text_file(dir.path() / "config.json", j.dump());
        return read_draft_config(dir.path() / "config.json");
    };
    auto flat = read_json_file(data / "plain/draft_config.json");
    auto layer = flat;
    layer.erase("draft_vocab_size");
    const Json nested{{"transformer_layer_config", layer},
                      {"draft_vocab_size", 48},
                      {"norm_before_residual", false},
                      {"eagle_aux_hidden_state_layer_ids", {2, 8, 13}}};
    const auto config = read(nested);
    CHECK(config.draft_vocab_size == 48);
    CHECK(config.hidden_size == 32);
    CHECK(configured_layers(config.source, "x") == std::vector<std::int64_t>{1, 7, 12});
    for (const char* key :
         {"norm_before_residual", "norm_before_fc", "attention_bias", "mlp_bias"}) {
        auto other = flat;
        other[key] = true;
        CHECK_THROWS_WITH(read(other), Contains(std::string(key) + " is true"));
    }
    for (const auto& none : {Json::array(), Json(3), Json{{"transformer_layer_config", 3}},
                             Json{{"transformer_layer_config", Json::object()}}})
        CHECK_THROWS_AS(read(none), DataError);
}

TEST_CASE("the layers that a config asks for, as SGLang and as vLLM count") {
    const char* key = "eagle_aux_hidden_state_layer_ids";
    using Layers = std::vector<std::int64_t>;
    CHECK_FALSE(configured_layers(Json::object(), "x").has_value());
    CHECK_FALSE(configured_layers({{"eagle_config", {{key, nullptr}}}}, "x").has_value());
    CHECK(configured_layers({{"eagle_config", {{key, {1, 7, 12}}}}}, "x") == Layers{1, 7, 12});
    CHECK(configured_layers({{key, {2, 8, 13}}}, "x") == Layers{1, 7, 12});
    CHECK(configured_layers({{"eagle_config", {{key, {1, 7, 12}}}}, {key, {2, 8, 13}}}, "x") ==
          Layers{1, 7, 12});
    for (const auto& bad : {Json("all"), Json{-1}, Json{"1"}, Json{1.5}, Json{1e30}, Json{{1}}})
        CHECK_THROWS_AS(configured_layers({{"eagle_config", {{key, bad}}}}, "x"), DataError);
}
