#include "eyas/format/torch_file.hpp"

#include <catch2/catch.hpp>
#include <cstring>

#include "eyas/core/checksum.hpp"
#include "scratch.hpp"

using namespace eyas;

namespace {
const std::string data = "tests/format/testdata/";

template <class T>
std::vector<float> floats(const TensorView& v) {
    std::vector<float> out;
    for (auto x : v.as<T>()) out.push_back(static_cast<float>(x));
    return out;
}
}  // namespace

TEST_CASE("files of torch.save are read: every kind of value, shared and transposed storage") {
    const TorchFile f(data + "every_kind.pt");
    REQUIRE(floats<BFloat16>(f.at("a")) == std::vector<float>{0, 1, 2, 3, 4, 5});
    REQUIRE(floats<BFloat16>(f.at("at")) == std::vector<float>{0, 3, 1, 4, 2, 5});
    REQUIRE(f.at("at").shape == Shape{3, 2});
    REQUIRE(f.at("b").dtype == DType::U16);
    REQUIRE(f.at("f8").dtype == DType::F8E4M3);
    REQUIRE(f.at("c").dtype == DType::C64);
    REQUIRE(f.at("u32").dtype == DType::U32);
    REQUIRE(floats<float>(f.at("param")) == std::vector<float>{1, 1});
    const auto& root = f.root();
    REQUIRE(root.at("big", "").require<std::int64_t>("") == std::int64_t{1} << 40);
    REQUIRE(root.at("neg", "").require<std::int64_t>("") == -5);
    REQUIRE(root.at("dt", "").require<DType>("") == DType::BF16);
    const auto& n = root.at("n", "");
    REQUIRE(n.at("y", "").require<double>("") == 2.5);
    REQUIRE(n.at("s", "").require<std::string>("") == "hi");
    REQUIRE(n.at("t", "").require<PickleTuple>("").items.size() == 2);
    REQUIRE(n.at("z", "").as<std::monostate>());
}

TEST_CASE("the reference's feature files and vocabulary map are read, gzip too") {
    const TorchFile plain(data + "data_0.ckpt"), packed(data + "data_6.ckpt.gz"),
        map(data + "vocab_mapping.pt");
    REQUIRE(plain.at("input_ids").shape == Shape{21});
    REQUIRE(plain.at("aux_hidden_state").shape == Shape{1, 21, 24});
    REQUIRE(plain.tensors()[0].name == "input_ids");
    REQUIRE(plain.tensors()[3].name == "hidden_state");
    REQUIRE(packed.at("hidden_state").shape == Shape{1, 19, 8});
    REQUIRE(map.at("t2d").dtype == DType::Bool);
}

TEST_CASE("what is written is read again, every dtype, empty and scalar tensors, nested values") {
    test::Scratch dir;
    const auto path = dir.path() / "x.pt";
    std::vector<Tensor> owned;
    PickleDict tensors;
    for (const auto& row : detail::dtype_table)
        for (const Shape& shape : {Shape{3, 5}, Shape{}, Shape{0, 4}}) {
            owned.push_back(Tensor::zeros(row.dtype, shape));
            const auto bytes = owned.back().mutable_view().bytes();
            for (std::size_t i = 0; i < bytes.size(); ++i)
                bytes[i] = static_cast<std::byte>(row.dtype == DType::Bool ? i % 2 : i * 37 + 1);
            tensors.set(std::string(row.torch) + shape.text(), owned.back().view());
        }
    PickleDict root;
    root.set("tensors", std::move(tensors));
    root.set("bytes", PickleBytes{std::string("a\xFF\0b", 4)});
    root.set("list",
             PickleList{1.5, std::int64_t{-70000}, true, PickleValue(), std::string("\xC3\xA4")});
    write_torch_file(path, PickleValue(root));
    const TorchFile f(path);
    std::size_t i = 0;
    for (const auto& t : f.tensors()) {
        const auto& want = owned[i++];
        REQUIRE(t.tensor.dtype == want.dtype());
        REQUIRE(t.tensor.shape == want.shape());
        REQUIRE(xxh3(t.tensor.bytes()) == xxh3(want.view().bytes()));
    }
    REQUIRE(i == owned.size());
    REQUIRE(f.root().at("bytes", "").require<PickleBytes>("").data == std::string("a\xFF\0b", 4));
    const auto& list = f.root().at("list", "").require<PickleList>("");
    REQUIRE(list[1].require<std::int64_t>("") == -70000);
    REQUIRE(list[4].require<std::string>("") == "\xC3\xA4");
}
