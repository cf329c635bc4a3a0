#include "eyas/evaluate/acceptance.hpp"

#include <catch2/catch.hpp>

using namespace eyas;
using Ids = std::vector<std::int64_t>;

TEST_CASE("acceptance counts what was judged", "[evaluate]") {
    Acceptance a;
    CHECK(a.length() == 0);
    CHECK(a.rate(0) == 0);  // nothing was proposed
    a.add_pass(0, 0, 1);    // a pass without a draft
    CHECK(a.length() == 1);
    CHECK(a.rate(0) == 0);
    a.add_pass(1, 1, 2);  // accepted, and the draft ended there
    a.add_pass(1, 0, 1);  // refused at once
    a.add_pass(3, 2, 3);  // refused at the third
    CHECK(a.proposed == Ids{3, 1, 1});
    CHECK(a.accepted == Ids{2, 1, 0});
    CHECK(a.rate(0) == 2.0 / 3);
    CHECK(a.rate(1) == 1);
    CHECK(a.rate(2) == 0);
    CHECK(a.rate(3) == 0);
    CHECK(a.length() == 7.0 / 4);
    Acceptance sum;
    sum.add(a), sum.add({}), sum.add(a);
    CHECK(sum.passes == 8);
    CHECK(sum.tokens == 14);
    CHECK(sum.proposed == Ids{6, 2, 2});
    CHECK(sum.accepted == Ids{4, 2, 0});
}
