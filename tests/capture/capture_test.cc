#include "eyas/capture/capture.hpp"

#include <catch2/catch.hpp>

#include "eyas/device/cpu.hpp"
#include "tests/capture/tiny_llama.hpp"

using namespace eyas;
using eyas::test::random_ids;
using eyas::test::ScratchDirectory;
using eyas::test::TinyLlama;

namespace {

struct Fixture {
    ScratchDirectory dir;
    TinyLlama llama;
    std::vector<Conversation> talks;
    std::filesystem::path out = dir.path() / "features";

    Fixture() {
        llama.write(dir.path() / "model");
        for (std::int64_t n : {5, 11, 3, 20, 8}) {
            Conversation c{random_ids(n, llama.vocab, static_cast<std::uint32_t>(n)), {}};
            c.loss_mask.assign(c.input_ids.size(), 1);
            c.loss_mask[0] = 0;
            talks.push_back(c);
        }
    }
    TargetModel<Cpu> model(std::vector<std::int64_t> layers = {1, 2, 4}) const {
        return TargetModel<Cpu>(HfWeights(dir.path() / "model"), {layers});
    }
    CaptureReport capture(CaptureOptions options = {}) const {
        auto m = model();
        return FeatureCapture<Cpu>(m, out, std::move(options)).run(talks);
    }
    std::filesystem::path file(std::int64_t i) const { return feature_file(out, i); }
};

}  // namespace

TEST_CASE("files are numbered in folders of 2000", "[capture]") {
    CHECK(feature_file("d", 0) == "d/rows_0-2000/data_0.ckpt");
    CHECK(feature_file("d", 1999) == "d/rows_0-2000/data_1999.ckpt");
    CHECK(feature_file("d", 2000) == "d/rows_2000-4000/data_2000.ckpt");
}

TEST_CASE("each conversation becomes one file of the reference's layout", "[capture]") {
    const Fixture f;
    const auto report = f.capture({.pack_tokens = 16});
    CHECK(report.captured == 5);
    CHECK(report.reused == 0);
    CHECK(report.tokens == 47);
    CHECK_FALSE(report.stopped);
    auto model = f.model();
    for (std::int64_t i = 0; i < 5; ++i) {
        const auto& talk = f.talks[static_cast<std::size_t>(i)];
        const TorchFile file(f.file(i));
        const auto tensors = file.tensors();
        REQUIRE(tensors.size() == 4);
        CHECK(tensors[0].name == "input_ids");
        CHECK(tensors[1].name == "loss_mask");
        CHECK(tensors[2].name == "aux_hidden_state");
        CHECK(tensors[3].name == "hidden_state");
        CHECK(std::ranges::equal(tensors[0].tensor.as<std::int64_t>(), talk.input_ids));
        CHECK(std::ranges::equal(tensors[1].tensor.as<std::int64_t>(), talk.loss_mask));
        REQUIRE(tensors[2].tensor.shape == Shape{1, talk.tokens(), 3 * f.llama.width});
        REQUIRE(tensors[3].tensor.shape == Shape{1, talk.tokens(), f.llama.width});
        const auto states = model.forward(talk.input_ids);
        const auto near = [](const TensorView& got, const Tensor& want) {
            // bfloat16 keeps 8 bits: rounding errs by 2^-9 of a value, and at most by the 2^-8 to
            // the next one where packing moved the last fp32 bit across a tie.
            for (std::int64_t j = 0; j < want.elements(); ++j) {
                const float w = want.as<float>()[static_cast<std::size_t>(j)];
                const float g = static_cast<float>(got.as<BFloat16>()[static_cast<std::size_t>(j)]);
                if (std::abs(g - w) > std::abs(w) / 256 + 1e-5f) return false;
            }
            return true;
        };
        CHECK(near(tensors[2].tensor, states.captured));
        CHECK(near(tensors[3].tensor, states.last));
    }
}

TEST_CASE("a second run reuses what is complete and repairs what is not", "[capture]") {
    Fixture f;
    f.capture();
    const auto before = std::filesystem::last_write_time(f.file(0));
    const auto bytes = read_text_file(f.file(3));
    std::filesystem::resize_file(f.file(1), 100);                  // truncated
    std::filesystem::remove(f.file(3));                            // missing
    f.talks[4].input_ids[2] = (f.talks[4].input_ids[2] + 1) % 50;  // another conversation
    const auto report = f.capture();
    CHECK(report.reused == 2);
    CHECK(report.captured == 3);
    CHECK(std::filesystem::last_write_time(f.file(0)) == before);
    CHECK(read_text_file(f.file(3)).size() == bytes.size());
    CHECK(TorchFile(f.file(4)).at("input_ids").as<std::int64_t>()[2] == f.talks[4].input_ids[2]);
    CHECK(f.capture().reused == 5);
}

TEST_CASE("the stop flag ends a capture that a later run completes", "[capture]") {
    const Fixture f;
    std::atomic<bool> stop{false};
    std::int64_t calls = 0;
    const auto first = f.capture({.pack_tokens = 8,
                                  .on_progress =
                                      [&](const CaptureReport& r) {
                                          ++calls;
                                          CHECK(r.conversations == 5);
                                          if (r.captured >= 2) stop = true;
                                      },
                                  .stop = &stop});
    CHECK(first.stopped);
    CHECK(first.captured == 2);
    CHECK(calls == 2);
    CHECK_FALSE(std::filesystem::exists(f.file(2)));
    CHECK_FALSE(std::filesystem::exists(capture_done_file(f.out)));
    const auto second = f.capture();
    CHECK(declared_end(capture_done_file(f.out)) == DeclaredEnd{5});
    CHECK(second.reused == 2);
    CHECK(second.captured == 3);
    CHECK_FALSE(second.stopped);
    f.capture({.stop = &stop});  // it is taken away while another run is at it
    CHECK_FALSE(std::filesystem::exists(capture_done_file(f.out)));
}

TEST_CASE("features of another origin are never mixed", "[capture]") {
    Fixture f;
    f.capture();
    SECTION("other layers") {
        auto model = f.model({0, 2, 4});
        CHECK_THROWS_WITH(FeatureCapture<Cpu>(model, f.out), Catch::Contains("other layers"));
    }
    SECTION("another model") {
        TinyLlama(true, 7).write(f.dir.path() / "model");
        auto model = f.model();
        CHECK_THROWS_AS(FeatureCapture<Cpu>(model, f.out), ContractError);
    }
    SECTION("another precision") {
        TargetModel<Cpu, Bf16> model(HfWeights(f.dir.path() / "model"), {{1, 2, 4}});
        const auto claim = [&] { FeatureCapture<Cpu, Bf16>(model, f.out); };
        CHECK_THROWS_WITH(claim(), Catch::Contains("precision: \"float32\" and \"bfloat16\""));
        // One of a version that knew no other than fp32.
        auto old = convention_to_json(captured_convention(f.out).value());
        old.erase("precision");
        write_text_file(capture_file(f.out), old.dump());
        CHECK_THROWS_WITH(claim(), Catch::Contains("precision: \"float32\" and \"bfloat16\""));
        write_text_file(capture_file(f.out),
                        OrderedJson{{"target", old["target"]}, {"layers", old["layers"]}}.dump());
        CHECK_THROWS_WITH(claim(), Catch::Contains("precision: \"float32\" and \"bfloat16\""));
        auto same = f.model();
        CHECK_NOTHROW(FeatureCapture<Cpu>(same, f.out));
    }
    SECTION("unknown origin") {
        std::filesystem::remove(f.out / "capture.json");
        auto model = f.model();
        CHECK_THROWS_WITH(FeatureCapture<Cpu>(model, f.out), Catch::Contains("unknown origin"));
    }
    SECTION("fewer conversations than files") {
        f.talks.pop_back();
        CHECK_THROWS_WITH(f.capture(), Catch::Contains("more than these 4"));
        CHECK(std::filesystem::exists(f.file(4)));
    }
    SECTION("not three layers") {
        auto model = f.model({1, 4});
        CHECK_THROWS_AS(FeatureCapture<Cpu>(model, f.dir.path() / "new"), ContractError);
        CHECK_FALSE(std::filesystem::exists(f.dir.path() / "new"));
    }
}

TEST_CASE("features of more conversations than there are now are found behind a gap", "[capture]") {
    Fixture f;
    f.capture();
    f.talks.resize(3);
    std::filesystem::remove(f.file(3));
    CHECK_THROWS_WITH(f.capture(),
                      Catch::Contains("holds more than these 3") && Catch::Contains("data_4.ckpt"));
    CHECK(std::filesystem::exists(capture_done_file(f.out)));
    std::filesystem::remove(f.file(4));
    CHECK(f.capture().reused == 3);
}

TEST_CASE("a target's name is text that JSON can hold, whatever its directory is called",
          "[capture]") {
    const Fixture f;
    const auto name_of = [&](const std::string& directory, const Json& in_config = {}) {
        auto config = f.llama.config();
        if (!in_config.is_null()) config["_name_or_path"] = in_config;
        f.llama.write(f.dir.path() / directory, DType::F32, config);
        return target_names(HfWeights(f.dir.path() / directory)).id;
    };
    CHECK(name_of("tiny") == "tiny");
    CHECK(name_of("b\xff") == "b\xef\xbf\xbd");
    // Two bytes each: one is cut in the middle, and left out.
    std::string long_name = "x";
    while (long_name.size() < MetadataLimits::string_bytes) long_name += "\xc3\xa4";
    const auto cut = name_of("long", long_name);
    CHECK(cut == long_name.substr(0, MetadataLimits::string_bytes - 1));
    CHECK_NOTHROW(Json(cut).dump());
}
