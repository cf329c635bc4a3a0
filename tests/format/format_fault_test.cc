#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>

#include "eyas/format/hf_weights.hpp"
#include "eyas/format/safetensors.hpp"
#include "eyas/format/torch_file.hpp"
#include "scratch.hpp"

using namespace eyas;

namespace {
void write_bytes(const std::filesystem::path& path, std::string_view bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
}

/// A torch zip around any pickle.
void write_pickle(const std::filesystem::path& path, const std::string& pickle) {
    AtomicFile file(path, false);
    ZipWriter zip(file);
    zip.add("archive/data.pkl", pickle);
    zip.add("archive/data/0", std::string(64, 'x'));
    zip.finish();
    file.commit();
}

/// Opens and touches everything; true when it was refused with a typed error. Anything else ends
/// the test.
template <class F>
bool refused(const std::filesystem::path& path) {
    try {
        const F f(path);
        std::uint64_t sum = 0;
        for (const auto& t : f.tensors())
            for (auto b : t.tensor.bytes()) sum += static_cast<std::uint64_t>(b);
        return sum == ~std::uint64_t{0};
    } catch (const Error&) {
        return true;
    }
}

template <class F>
void truncate_and_flip(const std::string& whole, const std::filesystem::path& scratch,
                       bool flips_are_found) {
    for (std::size_t n = 0; n < whole.size(); ++n) {
        write_bytes(scratch, std::string_view(whole).substr(0, n));
        INFO("cut to " << n << " of " << whole.size());
        REQUIRE(refused<F>(scratch));
    }
    std::size_t found = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) {
        auto bad = whole;
        bad[i] = static_cast<char>(bad[i] ^ (1 << i % 8));
        write_bytes(scratch, bad);
        found += refused<F>(scratch) ? 1 : 0;
    }
    if (flips_are_found) REQUIRE(found > whole.size() / 2);
}
const std::string data = "tests/format/testdata/";
}  // namespace

TEST_CASE("a torch file cut anywhere is refused, a flipped byte never does harm") {
    test::Scratch dir;
    const std::int64_t ids[] = {1, 2, 3};
    const NamedTensor tensors[] = {
        {"input_ids", {reinterpret_cast<const std::byte*>(ids), DType::I64, {3}}}};
    write_torch_file(dir.path() / "a.ckpt", tensors);
    truncate_and_flip<TorchFile>(read_text_file(dir.path() / "a.ckpt"), dir.path() / "b.ckpt",
                                 false);
    truncate_and_flip<TorchFile>(read_text_file(data + "data_6.ckpt.gz").substr(0, 3000),
                                 dir.path() / "c.ckpt.gz", true);
}

TEST_CASE("a flipped byte in a tensor of a torch file is found by its CRC") {
    test::Scratch dir;
    auto whole = read_text_file(data + "data_0.ckpt");
    const TorchFile f(data + "data_0.ckpt");
    const auto ids = f.at("input_ids");
    const auto at =
        whole.find(std::string(reinterpret_cast<const char*>(ids.data), ids.size_bytes()));
    REQUIRE(at != std::string::npos);
    whole[at + 9] = static_cast<char>(whole[at + 9] ^ 4);
    write_bytes(dir.path() / "x.ckpt", whole);
    REQUIRE_THROWS_WITH(TorchFile(dir.path() / "x.ckpt"),
                        Catch::Contains("CRC") && Catch::Contains("x.ckpt"));
}

TEST_CASE("a safetensors file cut anywhere is refused, a flipped byte never does harm") {
    test::Scratch dir;
    const std::int64_t ids[] = {1, 2, 3};
    const NamedTensor tensors[] = {
        {"x", {reinterpret_cast<const std::byte*>(ids), DType::I64, {3}}}};
    write_safetensors(dir.path() / "a.safetensors", tensors, {{"k", "v"}});
    truncate_and_flip<SafetensorsFile>(read_text_file(dir.path() / "a.safetensors"),
                                       dir.path() / "b.safetensors", false);
}

TEST_CASE("pickles that would run something, or blow up, are refused with their reason") {
    test::Scratch dir;
    const auto path = dir.path() / "x.pt";
    const auto check = [&](const std::string& pickle, const std::string& words) {
        write_pickle(path, pickle);
        REQUIRE_THROWS_WITH(TorchFile(path), Catch::Contains(words));
        REQUIRE_THROWS_AS(TorchFile(path), Error);
    };
    check(
        "\x80\x02"
        "cos\nsystem\n)R.",
        "os system");
    check(
        "\x80\x02"
        "cbuiltins\neval\n.",
        "not allowed");
    check("\x80\x02i.", "opcode");
    check("\x80\x02}", "truncated");
    check(
        "\x80\x02"
        "0.",
        "opcode");
    check(
        "\x80\x02"
        "e.",
        "no mark");
    check("\x80\x02h\x05.", "never stored");
    check(std::string("\x80\x02]q\0h\0a.", 9), "nested or shared");  // a list inside itself
    std::string laughs =
        std::string("\x80\x02]q") + '\0';  // each list holds the one before ten times
    for (char k = 1; k < 30; ++k) {
        laughs += "](";
        for (int i = 0; i < 10; ++i) laughs += std::string("h") + static_cast<char>(k - 1);
        laughs += std::string("eq") + k;
    }
    write_pickle(path, laughs + ".");
    REQUIRE_THROWS_AS(TorchFile(path), DataError);
    const std::string none("K\0", 2);
    // These literals hold zero bytes, so they are put together with explicit lengths.
    const auto full = [&](const std::string& offset, const std::string& size,
                          const std::string& stride) {
        std::string p("\x80\x02}(X\x01\0\0\0t", 10);
        p += "ctorch._utils\n_rebuild_tensor_v2\n((";
        p += std::string("X\x07\0\0\0storage", 12) + "ctorch\nFloatStorage\n" +
             std::string(
                 "X\x01\0\0\0"
                 "0",
                 6) +
             std::string("X\x03\0\0\0cpu", 8);
        return p + "K\x10tQ" + offset + size + stride + "\x89)tRu.";
    };
    write_pickle(path, full(none, "K\x10\x85", "K\x01\x85"));
    REQUIRE(TorchFile(path).at("t").shape == Shape{16});
    check(full("K\x01", "K\x10\x85", "K\x01\x85"), "left by a tensor");
    check(full(none, "K\x09\x85", "K\x02\x85"), "left by a tensor");
    check(full(none, "J\xff\xff\xff\xff\x85", "K\x01\x85"), "impossible tensor shape");
    check(full(none, "J\xff\xff\xff\x7f\x85", std::string("K\0\x85", 3)),
          "strided tensor");  // 2^31 elements from one
}

TEST_CASE("other torch formats, compressed zips and foreign files are refused with a remedy") {
    test::Scratch dir;
    REQUIRE_THROWS_WITH(TorchFile(data + "legacy.pt"),
                        Catch::Contains("before 1.6") && Catch::Contains("torch.save"));
    write_bytes(dir.path() / "x.pt", "hello");
    REQUIRE_THROWS_AS(TorchFile(dir.path() / "x.pt"), DataError);
    auto whole = read_text_file(data + "data_0.ckpt");
    for (auto at = whole.find("PK\x01\x02"); at != std::string::npos;
         at = whole.find("PK\x01\x02", at + 1))
        whole[at + 10] = 8;
    write_bytes(dir.path() / "y.pt", whole);
    REQUIRE_THROWS_WITH(TorchFile(dir.path() / "y.pt"), Catch::Contains("compressed"));
    REQUIRE_THROWS_AS(TorchFile(dir.path() / "absent.pt"), DataError);
}

TEST_CASE("safetensors headers that lie are refused") {
    test::Scratch dir;
    const auto path = dir.path() / "x.safetensors";
    const auto check = [&](const std::string& header, const std::string& words,
                           std::size_t bytes = 8) {
        const std::uint64_t n = header.size();
        write_bytes(path, std::string(reinterpret_cast<const char*>(&n), 8) + header +
                              std::string(bytes, '\0'));
        REQUIRE_THROWS_WITH(SafetensorsFile(path), Catch::Contains(words));
    };
    check("[]", "not an object");
    check("{", "JSON");
    check(
        R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
        "overlap");
    check(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "hole");
    check(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", "does not fit");
    check(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,80]}})", "out of range");
    check(R"({"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}})", "unknown dtype");
    check(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})",
          "impossible");
    check(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "impossible");
    check(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "data end", 12);
    check(R"({"__metadata__":{"k":1}})", "not a string", 0);
    const std::uint64_t huge = ~std::uint64_t{0};
    write_bytes(path, std::string(reinterpret_cast<const char*>(&huge), 8) + "{}");
    REQUIRE_THROWS_WITH(SafetensorsFile(path), Catch::Contains("does not fit"));
}

TEST_CASE("model configs and shard indices that cannot be right are refused") {
    const Json good{{"hidden_size", 8},
                    {"intermediate_size", 8},
                    {"num_attention_heads", 2},
                    {"vocab_size", 9}};
    REQUIRE(parse_model_config(good, "c").head_dim == 4);
    const auto check = [&](const char* key, const Json& value, const std::string& words) {
        auto j = good;
        if (value.is_discarded())
            j.erase(key);
        else
            j[key] = value;
        REQUIRE_THROWS_WITH(parse_model_config(j, "c.json"),
                            Catch::Contains(words) && Catch::Contains("c.json"));
    };
    check("hidden_size", Json(Json::value_t::discarded), "hidden_size");
    check("hidden_size", -8, "positive");
    check("vocab_size", "many", "wrong type");
    check("num_key_value_heads", 3, "multiple");
    check("head_dim", 3, "odd");
    check("draft_vocab_size", 10, "larger than");
    check("hidden_act", "gelu", "silu");
    check("rope_scaling", Json{{"rope_type", "spiral"}}, "spiral");
    test::Scratch dir;
    write_text_file(dir.path() / "config.json", good.dump());
    write_text_file(dir.path() / "model.safetensors.index.json",
                    R"({"weight_map": {"a": "../b.safetensors"}})");
    REQUIRE_THROWS_WITH(HfWeights(dir.path()), Catch::Contains("leaves the directory"));
}

TEST_CASE("a short pickle whose storages share one long key is refused") {
    test::Scratch dir;
    const auto path = dir.path() / "x.pt";
    const std::string size{'\0', '\0', '\x10', '\0'};
    std::string pickle = "\x80\x02](";
    pickle += "(X" + std::string{'\7', '\0', '\0', '\0'} + "storagectorch\nFloatStorage\nX" + size +
              std::string(1 << 20, 'k') + "X" + std::string{'\3', '\0', '\0', '\0'} +
              "cpuK\x01tq\x01";
    for (int i = 0; i < 400; ++i) pickle += (i ? "h\x01Q" : "Q");
    write_pickle(path, pickle + "e.");
    REQUIRE_THROWS_WITH(TorchFile(path), Catch::Contains("too much memory"));
}

TEST_CASE("a short pickle that names one long value very often is refused") {
    test::Scratch dir;
    const auto path = dir.path() / "x.pt";
    const std::string text(1 << 20, 'x');
    const std::string size{'\0', '\0', '\x10', '\0'};  // of the text, little endian
    std::string pickle = "\x80\x02](X" + size + text + "q\x01";
    for (int i = 0; i < 100'000; ++i) pickle += "h\x01";
    write_pickle(path, pickle + "e.");
    REQUIRE_THROWS_WITH(TorchFile(path), Catch::Contains("too much memory"));
}

TEST_CASE("a short pickle takes little memory, however its values are shared") {
    test::Scratch dir;
    const auto path = dir.path() / "x.pt";
    std::string many(5'000'000, 'N');  // values that are dropped again
    write_pickle(path, "\x80\x02](" + many + "e.");
    REQUIRE_THROWS_WITH(TorchFile(path), Catch::Contains("too much memory"));
    // A list of 1000 values, named 4000 times: 4 million values of 16 KB.
    std::string shared = "\x80\x02](](" + std::string(1000, 'N') + "eq\x01";
    for (int i = 0; i < 4000; ++i) shared += "h\x01";
    write_pickle(path, shared + "e.");
    REQUIRE_THROWS_WITH(TorchFile(path), Catch::Contains("too much memory"));
    // A list of a million that holds itself first.
    std::string self = "\x80\x02]q\x01(h\x01N";
    for (int i = 0; i < 1'000'000; ++i) self += "h\x02";
    self.insert(self.find("h\x02"), "q\x02");
    write_pickle(path, self + "e.");
    REQUIRE_THROWS_WITH(TorchFile(path), Catch::Contains("too much memory"));
}

TEST_CASE("a short pickle with many long argument tuples is read in time that its length bounds") {
    test::Scratch dir;
    const auto path = dir.path() / "x.pt";
    std::string pickle = "\x80\x02](ctorch._utils\n_rebuild_parameter\nq\x02(" +
                         std::string(400'000, 'N') + "tq\x01";
    for (int i = 0; i < 100'000; ++i) pickle += "h\x02h\x01R";  // 400 GB, if each were copied
    write_pickle(path, pickle + "e.");
    REQUIRE_THROWS_AS(TorchFile(path), DataError);  // a class is no value
}
