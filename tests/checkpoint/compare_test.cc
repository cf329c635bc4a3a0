#include "eyas/checkpoint/compare.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include "tests/checkpoint/run_directory.hpp"

using namespace eyas;
using test::RunDirectory;

namespace {
struct Files {
    explicit Files(const std::filesystem::path& dir) : dir_(dir) { eyas::create_directories(dir); }

    // One float32 tensor "w" [4] and one int64 tensor "n" [1].
    std::filesystem::path write(const std::string& name, std::vector<float> w, std::int64_t n) {
        Tensor a(DType::F32, Shape{static_cast<std::int64_t>(w.size())}), b(DType::I64, Shape{1});
        std::ranges::copy(w, a.as<float>().begin());
        b.as<std::int64_t>()[0] = n;
        const std::vector<NamedTensor> all{{"w", a}, {"n", b}};
        write_safetensors(dir_ / name, all);
        return dir_ / name;
    }
    std::filesystem::path dir_;
};
}  // namespace

TEST_CASE("equal files, different values, NaN and minus zero") {
    const RunDirectory dir("compare");
    Files f(dir.path());
    const auto a = f.write("a.safetensors", {1, 2, 3, 0}, 7);
    const auto same = f.write("b.safetensors", {1, 2, 3, 0}, 7);
    const auto other = f.write("c.safetensors", {1, 2.5, 3, -0.f}, 7);
    const auto nan = f.write("d.safetensors", {1, 2, std::nanf(""), 0}, 9);
    const auto equal = compare_tensors(a, same);
    CHECK(equal.identical());
    CHECK(equal.tensors == 2);
    CHECK(equal.bytes == 24);
    const auto d = compare_tensors(a, other).differences;
    REQUIRE(d.size() == 1);
    CHECK(d[0].name == "w");
    CHECK(d[0].what == "values");
    CHECK(d[0].count == 2);  // 0 and -0 have other bits
    CHECK(d[0].elements == 4);
    CHECK(d[0].max_abs == 0.5);
    const auto n = compare_tensors(a, nan).differences;
    REQUIRE(n.size() == 2);
    CHECK(n[0].max_abs == 2);  // "n": 7 and 9
    CHECK(std::isinf(n[1].max_abs));
    CHECK(compare_tensors(nan, nan).identical());
}

TEST_CASE("directories are compared file by file") {
    const RunDirectory dir("comparedirs");
    Files one(dir.path() / "one"), two(dir.path() / "two");
    one.write("model.safetensors", {1, 2}, 0);
    one.write("optimizer.safetensors", {5, 6}, 0);
    two.write("model.safetensors", {1, 2}, 0);
    write_text_file(dir.path() / "one" / "state.json", "{}");
    const auto c = compare_tensors(dir.path() / "one", dir.path() / "two");
    CHECK(c.tensors == 4);
    REQUIRE(c.differences.size() == 2);
    CHECK(c.differences[0].name == "optimizer.safetensors: n");
    CHECK(c.differences[0].what == "only in the first");
    two.write("optimizer.safetensors", {5, 6, 7}, 0);
    const auto s = compare_tensors(dir.path() / "one", dir.path() / "two");
    REQUIRE(s.differences.size() == 1);
    CHECK(s.differences[0].what == "shape");
    eyas::create_directories(dir.path() / "empty");
    CHECK_THROWS_AS(compare_tensors(dir.path() / "empty", dir.path() / "one"), DataError);
    CHECK_THROWS_AS(compare_tensors(dir.path() / "nowhere.safetensors", dir.path() / "one"),
                    DataError);
}

TEST_CASE("torch files: tensors in dicts, lists and under numbers") {
    const RunDirectory dir("comparetorch");
    eyas::create_directories(dir.path());
    const auto write = [&](const char* file, float moment) {
        Tensor a(DType::F32, Shape{1}), b(DType::F32, Shape{1});
        a.as<float>()[0] = 1;
        b.as<float>()[0] = moment;
        PickleDict one, state, root;
        one.set("exp_avg", b.view());
        state.items.emplace_back(std::int64_t{0}, std::move(one));
        root.set("fp32_params", PickleList{a.view()});
        root.set("state", std::move(state));
        write_torch_file(dir.path() / file, PickleValue(std::move(root)));
        return dir.path() / file;
    };
    const auto a = write("a.pt", 2), same = write("b.pt", 2), other = write("c.pt", 5);
    CHECK(compare_tensors(a, same).identical());
    CHECK(compare_tensors(a, same).tensors == 2);
    const auto d = compare_tensors(a, other).differences;
    REQUIRE(d.size() == 1);
    CHECK(d[0].name == "state.0.exp_avg");
    CHECK(d[0].max_abs == 3);
}
