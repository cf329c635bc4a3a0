// Attention in bfloat16 by a library (SdpaLibrary) and the kernels that merge the diagonal, on the
// fake's streams, beside one softmax in double; what the library refuses; what fails.
#include <catch2/catch.hpp>

#include "eyas/device/cuda.cuh"
#include "eyas/ops/block/all.hpp"
#include "fake_cuda.hpp"
#include "op_parity.hpp"
#include "reference_sdpa.hpp"
#include "sdpa_case.hpp"

using namespace eyas;
using test::sdpa::Case, test::sdpa::Chosen, test::sdpa::compare;
using Told = std::vector<std::string>;

namespace {
std::shared_ptr<fake_cuda::ReferenceSdpa> reference() {
    return std::make_shared<fake_cuda::ReferenceSdpa>();
}
}  // namespace

TEST_CASE("attention by a library with the diagonal merged is one softmax") {
    for (const bool eager : {false, true})
        for (const bool backwards : {false, true}) {
            fake_cuda::eager(eager), fake_cuda::backwards(backwards);
            const Chosen c(reference());
            compare(c.cuda, {37, 4, 2, 16, 0, {37, 37}});
            compare(c.cuda, {37, 4, 2, 16, 3, {37, 12}});
            compare(c.cuda, {20, 3, 3, 40, 15, {1}});
            compare(c.cuda, {65, 6, 1, 64, 6, {65, 64, 3}});
            CHECK(c.cuda.attention_use().text() == "reference, 8 calls");
            CHECK(fake_cuda::failures() == Told());
        }
    fake_cuda::eager(false), fake_cuda::backwards(false);
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("without a library, or where it refuses, the own strips attend") {
    const auto library = reference();
    const Chosen c(library);
    const auto strips = [] { return test::attention_case<BFloat16>(Cuda(), 37, 2); };
    const auto refused = strips();  // keys that are not the first ones
    CHECK(c.cuda.attention_use().taken == 0);
    CHECK(c.cuda.attention_use().refused == 1);
    CHECK_THAT(c.cuda.attention_use().text(),
               Catch::Contains("reference, 0 calls, 1 by own strips (rows of several documents"));
    const Case narrow{12, 2, 1, 16, 1, {12}};
    compare(c.cuda, narrow);
    CHECK(c.cuda.attention_use().taken == 2);
    library->widest = 8;
    Told told;
    c.cuda.attend_by(library, [&](const SdpaUse& use) { told.push_back(use.text()); });
    CHECK(told == Told());
    CHECK(c.cuda.plans_sdpa({.head_dim = 16, .leading_keys = true}) == false);
    CHECK(told == Told{"reference, 0 calls, 1 by own strips (heads of 16)"});
    CHECK(c.cuda.attention_use().text() == "reference, 0 calls, 1 by own strips (heads of 16)");
    CHECK(c.cuda.plans_sdpa({.head_dim = 8, .leading_keys = true}));
    CHECK_FALSE(c.cuda.plans_sdpa({.head_dim = 24, .leading_keys = true}));
    CHECK(told.size() == 1);  // the first one only
    CHECK(test::attention_case<float>(c.cuda, 37, 2).size() == refused.size());
    CHECK(c.cuda.attention_use().refused == 2);  // fp32 never asks
    c.cuda.attend_by(nullptr);
    CHECK(c.cuda.attention_use().text() == "own strips, 0 calls");
    CHECK(strips() == refused);
    CHECK(fake_cuda::failures() == Told());
}
