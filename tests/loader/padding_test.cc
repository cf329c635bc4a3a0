// Rows padded to a multiple of some tokens: how long batches are, and what lies in the padding.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "tests/loader/loader_run.hpp"

using namespace eyas;
using test::FakeStore;
using test::fill;
using test::options;

namespace {
/// Samples of 5, 6, 7, 5, 6, 7 rows, one a batch, in that order.
struct Padded {
    FakeStore store = {};
    Manifest manifest = fill(store, 6);
    LoaderOptions o = in_order();

    static LoaderOptions in_order() {
        auto o = options(1);
        o.shuffle = false;
        return o;
    }
    std::vector<std::int64_t> lengths() {
        Loader loader(store, manifest, o);
        std::vector<std::int64_t> all;
        while (const auto* b = loader.next()) all.push_back(b->tokens());
        return all;
    }
};
using Lengths = std::vector<std::int64_t>;
}  // namespace

TEST_CASE("rows are padded to a multiple, and not beyond what a row may have") {
    Padded p;
    CHECK(p.lengths() == Lengths{5, 6, 7, 5, 6, 7});
    p.o.pad_to_multiple_of = 3;
    CHECK(p.lengths() == Lengths{6, 6, 9, 6, 6, 9});
    p.o.max_len = 8;
    CHECK(p.lengths() == Lengths{6, 6, 8, 6, 6, 8});
    p.o.max_len = 6;  // which cuts
    CHECK(p.lengths() == Lengths{6, 6, 6, 6, 6, 6});
    p.o.max_len = 2048;
    p.o.batch_size = 2;
    CHECK(p.lengths() == Lengths{6, 9, 9});
    p.o.pad_to_multiple_of = 100;
    CHECK(p.lengths() == Lengths{100, 100, 100});
    p.o.pack_tokens = 14;  // packed: 5 + 6, 7 + 5, 6 + 7
    p.o.batch_size = 1;
    p.o.pad_to_multiple_of = 4;
    CHECK(p.lengths() == Lengths{12, 12, 14});
    p.o.pad_to_multiple_of = std::int64_t{1} << 62;
    CHECK(p.lengths() == Lengths{14, 14, 14});
}

TEST_CASE("padding is zero and not attended, the rest as without; a packed row's is a document") {
    for (const std::int64_t pack : {0, 14}) {
        Padded p, plain;
        p.o.prefetch = 0;  // one slot, where shorter rows follow longer ones
        if (pack) std::swap(p.manifest.refs[0], p.manifest.refs[5]);  // 7 + 6, 7 + 5, 6 + 5
        plain.manifest = p.manifest;
        p.o.pack_tokens = plain.o.pack_tokens = pack;
        p.o.pad_to_multiple_of = 8;
        Loader long_rows(p.store, p.manifest, p.o), rows(plain.store, plain.manifest, plain.o);
        int batches = 0, shorter = 0;
        std::int64_t before = 0;
        while (const auto* want = rows.next()) {
            const auto* got = long_rows.next();
            REQUIRE(got);
            ++batches;
            CHECK(got->sample_ids == want->sample_ids);
            const auto t = want->tokens();
            REQUIRE(got->tokens() == p.o.padded(t));
            shorter += std::exchange(before, t) > t;
            for (const auto view : {&Batch::input_ids, &Batch::attention_mask, &Batch::loss_mask,
                                    &Batch::hidden_state, &Batch::target}) {
                const auto a = (got->*view).bytes(), b = (want->*view).bytes();
                REQUIRE(a.size() * static_cast<std::size_t>(t) ==
                        b.size() * static_cast<std::size_t>(got->tokens()));
                CHECK(std::ranges::equal(a.first(b.size()), b));
                CHECK(std::ranges::all_of(a.subspan(b.size()),
                                          [](std::byte x) { return x == std::byte{0}; }));
            }
            CHECK(got->document.has_value() == (pack > 0));
            if (!pack) continue;
            const auto a = got->document->as<std::int64_t>(),
                       b = want->document->as<std::int64_t>();
            CHECK(std::ranges::equal(a.first(b.size()), b));
            CHECK(std::ranges::all_of(a.subspan(b.size()), [&](auto d) { return d == t; }));
        }
        CHECK(batches == (pack ? 3 : 6));
        CHECK(shorter > 0);
        CHECK(long_rows.next() == nullptr);
    }
}

TEST_CASE("the ring has room for padded rows; a multiple of nothing is refused") {
    Padded p;
    p.o.pad_to_multiple_of = 128;
    CHECK(detail::largest_batch_bytes(p.manifest, p.o) ==
          BatchArena::bytes_for(1, 128, 4, DType::BF16));
    p.o.ring_bytes = 3 * 4096;  // enough for 7 rows, not for 128
    CHECK_THROWS_AS(p.lengths(), ContractError);
    p.o.ring_bytes = 0;
    CHECK(held_out_options(p.o).pad_to_multiple_of == 1);
    CHECK(p.o.padded(5000) == 5000);  // longer than max_len: as it is
    p.o.pad_to_multiple_of = 0;
    CHECK_THROWS_WITH(p.lengths(), Catch::Contains("pad_to_multiple_of 0"));
}
