#include <algorithm>
#include <catch2/catch.hpp>

#include "eyas/format/torch_file.hpp"
#include "eyas/sample/vocab_map_build.hpp"
#include "eyas/sample/vocab_map_io.hpp"

using namespace eyas;

TEST_CASE("the map built from the reference's feature files is the reference's") {
    TokenCounts counts;
    for (int i = 0; i < 7; ++i) {
        const std::string path = "tests/loader/testdata/rows_0-2000/data_" + std::to_string(i) +
                                 (i == 6 ? ".ckpt.gz" : ".ckpt");
        const TorchFile file(path);
        counts.add(file.at("input_ids").as<std::int64_t>(), file.at("loss_mask").as<std::int64_t>(),
                   path, 96);
    }
    // More tokens than draft ids, so the order of ties decides.
    REQUIRE(counts.entries().size() > 40);
    REQUIRE(std::ranges::count(counts.entries(), 1, &TokenCounts::Entry::count) > 10);
    const auto want = load_vocab_map("tests/sample/testdata/vocab_mapping.pt");
    const auto have = build_vocab_map(counts, 96, 40);
    CHECK(have.d2t == want.d2t);
    CHECK(have.t2d == want.t2d);
    CHECK_NOTHROW(check_vocab_map(want, 96, 40, "vocab_mapping.pt"));
}
