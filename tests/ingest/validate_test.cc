#include "eyas/ingest/validate.hpp"

#include <catch2/catch.hpp>
#include <limits>

#include "tests/loader/fake_store.hpp"

using namespace eyas;
using test::FakeSample;

namespace {

void check_refused(const FakeSample& s, const SampleBounds& bounds, const std::string& words) {
    CHECK_THROWS_AS(validate_sample(s.tensors, bounds, "f.ckpt"), DataError);
    CHECK_THROWS_WITH(validate_sample(s.tensors, bounds, "f.ckpt"),
                      Catch::Matchers::StartsWith("f.ckpt") && Catch::Matchers::Contains(words));
}

std::span<std::int64_t> ints(FakeSample& s, std::size_t i) { return s.owned[i].as<std::int64_t>(); }

}  // namespace

TEST_CASE("a good sample gives its layout") {
    for (const auto dtype : {DType::BF16, DType::F32}) {
        const FakeSample s(6, 4, 1, dtype);
        const auto l = validate_sample(s.tensors, {.vocab_size = 106}, "f.ckpt");
        CHECK(l.rows == 6);
        CHECK(l.width == 4);
        CHECK(l.dtype == dtype);
    }
}

TEST_CASE("bad values are refused, feature and row are named") {
    FakeSample s(6, 4, 1);
    SampleBounds bounds;
    SECTION("negative id") {
        ints(s, 0)[3] = -1;
        check_refused(s, bounds, "input_ids: token id -1 at row 3");
    }
    SECTION("id outside the vocabulary") {
        bounds.vocab_size = 105;  // ids are 100 to 105
        check_refused(s, bounds, "token id 105 at row 5");
    }
    SECTION("mask value") {
        ints(s, 1)[2] = 2;
        check_refused(s, bounds, "loss_mask: mask value 2 at row 2");
    }
    SECTION("no supervised token") {
        std::ranges::fill(ints(s, 1), 0);
        check_refused(s, bounds, "no supervised token");
    }
    SECTION("only the last row is supervised, which training clears") {
        std::ranges::fill(ints(s, 1), 0);
        ints(s, 1)[5] = 1;
        check_refused(s, bounds, "no supervised token");
    }
    SECTION("the supervised tokens lie behind max_len") {
        std::ranges::fill(ints(s, 1).first(4), 0);
        bounds.max_len = 4;
        check_refused(s, bounds, "first 4 rows");
    }
    SECTION("NaN") {
        s.owned[2].as<BFloat16>()[4 * 2 + 3] = BFloat16(std::numeric_limits<float>::quiet_NaN());
        check_refused(s, bounds, "hidden_state: NaN or infinity at row 2, column 3");
    }
    SECTION("infinity") {
        s.owned[3].as<BFloat16>()[12 * 5 + 1] = BFloat16(-std::numeric_limits<float>::infinity());
        check_refused(s, bounds, "aux_hidden_state: NaN or infinity at row 5, column 1");
    }
    SECTION("missing feature") {
        s.tensors.pop_back();
        check_refused(s, bounds, "'aux_hidden_state' is missing");
    }
}

TEMPLATE_TEST_CASE("the scan finds the first non-finite value wherever it stands", "", float,
                   BFloat16) {
    const std::int64_t n = 10007;  // several blocks and a ragged end
    Tensor t(dtype_of<TestType>, Shape{n});
    for (std::int64_t i = 0; i < n; ++i)
        t.as<TestType>()[static_cast<std::size_t>(i)] =
            TestType(i % 2 ? std::numeric_limits<float>::lowest() / 2 : 1e-40f);
    CHECK_FALSE(find_non_finite(t));
    const auto nan = std::numeric_limits<float>::quiet_NaN(),
               inf = std::numeric_limits<float>::infinity();
    for (const std::size_t at : {10006u, 8192u, 4096u, 4095u, 0u}) {
        t.as<TestType>()[at] = TestType(at % 2 ? inf : nan);
        CHECK(find_non_finite(t) == at);
    }
}

TEST_CASE("only the feature types are scanned") {
    const Tensor t = Tensor::zeros(DType::I64, Shape{2});
    CHECK_THROWS_AS(find_non_finite(t), ContractError);
    CHECK_FALSE(find_non_finite(Tensor(DType::F32, Shape{0})));
}
