#include "eyas/evaluate/draft_shape.hpp"

#include <catch2/catch.hpp>

using namespace eyas;

TEST_CASE("shapes are read and written", "[evaluate]") {
    for (const char* text :
         {"chain:1", "chain:16", "tree:4,2,1", "tree:3", "dynamic:6,8,32", "dynamic:1,1,1",
          "dynamic:3,1,2", "tree:1024", "chain:5@0.4", "dynamic:6,8,32@0.05"})
        CHECK(parse_draft_shape(text).text() == text);
    CHECK(parse_draft_shape("tree:1,1").text() == "chain:2");
    CHECK(parse_draft_shape("chain:5@0.4").confidence == 0.4);
    CHECK(parse_draft_shape("chain:5@0").text() == "chain:5");
    for (const char* text : {"",
                             "chain",
                             "chain:",
                             "chain:0",
                             "chain:-1",
                             "chain:+1",
                             "chain:17",
                             "chain:2,2",
                             "chain:5,",
                             "chain:5x",
                             "chain: 5",
                             "tree:",
                             "tree:4,,2",
                             "tree:,4",
                             "tree:4,",
                             "tree:0,1",
                             "tree:1025",
                             "tree:32,33",
                             "tree:1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
                             "tree:31,31,2",
                             "dynamic:6,8",
                             "dynamic:6,8,32,1",
                             "dynamic:6,0,32",
                             "dynamic:6,8,0",
                             "dynamic:17,1,1",
                             "dynamic:2,33,9",
                             "chain:99999999999999999999",
                             "chain:5@",
                             "chain:5@x",
                             "chain:5@0.4x",
                             "chain:5@1",
                             "chain:5@-0.1",
                             "chain:5@nan",
                             "chain:5@inf",
                             "chain@0.4:5",
                             "@0.4",
                             "bush:3",
                             "Chain:3",
                             ":3"}) {
        INFO(text);
        CHECK_THROWS_AS(parse_draft_shape(text), ContractError);
    }
    CHECK_THROWS_WITH(parse_draft_shape("bush:3"), Catch::Contains("bush:3"));
    CHECK_NOTHROW(DraftShape::none().check());  // plain decoding
    CHECK_THROWS_AS(DraftShape::chain(-1), ContractError);
    CHECK_THROWS_AS((DraftShape{{2, 2}, -1, 0}).check(), ContractError);
    CHECK_THROWS_AS((DraftShape{{2, 2}, 2, -1}).check(), ContractError);
    // Without a total, all nodes: what is written means the same.
    CHECK(parse_draft_shape(DraftShape::dynamic(3, 4, 0).text()).nodes() == 4 + 16 + 16);
}

TEST_CASE("numbers of nodes and of rows", "[evaluate]") {
    CHECK(DraftShape::chain(5).nodes() == 5);
    CHECK(DraftShape::chain(5).expanded() == 4);
    CHECK(DraftShape::tree({4, 2, 1}).nodes() == 4 + 8 + 8);
    CHECK(DraftShape::tree({4, 2, 1}).expanded() == 4 + 8);
    CHECK(DraftShape::dynamic(3, 4, 10).nodes() == 10);
    CHECK(DraftShape::dynamic(3, 4, 1000).nodes() == 4 + 16 + 16);
    CHECK(DraftShape::dynamic(3, 4, 10).expanded() == 8);
}
