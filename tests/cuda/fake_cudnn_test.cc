// cuDNN's attention (CudnnSdpa) through the headers of cudnn-frontend, on a cuDNN of the host that
// computes the graphs they make: beside one softmax in double; what it refuses; each call that
// fails.
#include <catch2/catch.hpp>
#include <map>

#include "eyas/eyas.hpp"
// After the whole library, as users may have it.
#include "eyas/device/cudnn_sdpa.cuh"
#include "fake_cuda.hpp"
#include "sdpa_case.hpp"

using namespace eyas;
using test::sdpa::Case, test::sdpa::Chosen, test::sdpa::compare;
using Told = std::vector<std::string>;

namespace {
std::shared_ptr<SdpaLibrary> cudnn() { return std::make_shared<CudnnSdpa>(); }

/// Of the library that is chosen now.
test::sdpa::Attended attended(const Cuda& cuda, Case c = {9, 2, 1, 16, 1, {9, 4}}) {
    return test::sdpa::attend(cuda, c);
}
}  // namespace

TEST_CASE("cuDNN's graphs with the diagonal merged are one softmax") {
    for (const bool eager : {false, true}) {
        fake_cuda::eager(eager);
        {
            const Chosen c(cudnn());
            compare(c.cuda, {37, 4, 2, 16, 0, {37, 37}});
            compare(c.cuda, {37, 4, 2, 16, 3, {37, 12}});
            compare(c.cuda, {20, 3, 3, 40, 15, {1}});
            compare(c.cuda, {65, 6, 1, 64, 6, {65, 64, 3}});
            CHECK_THAT(c.cuda.attention_use().text(),
                       Catch::StartsWith("cuDNN 9.") && Catch::EndsWith(", 8 calls"));
        }
        CHECK(fake_cuda::failures() == Told());
        CHECK(fake_cuda::alive() == Told());
    }
    fake_cuda::eager(false);
}

TEST_CASE("cudnn-frontend's headers leave the program's JSON as it was") {
    Json j;
    j["loss"] = 0.5f;
    CHECK(j.dump() == R"({"loss":0.5})");
}

TEST_CASE("what cuDNN does not take goes to the own strips, with its reason") {
    const Case odd{12, 2, 1, 12, 1, {12}};  // heads that are no multiple of 8
    const auto strips = attended(Cuda(), odd);
    const Chosen c(cudnn());
    CHECK(attended(c.cuda, odd) == strips);
    CHECK(c.cuda.attention_use().taken == 0);
    CHECK(c.cuda.attention_use().refused == 2);
    CHECK_THAT(c.cuda.attention_use().why,
               Catch::Contains("cuDNN's validate") && Catch::Contains("multiple of 8"));
    attended(c.cuda);
    CHECK(c.cuda.attention_use().taken == 2);
    c.cuda.attend_by(std::make_shared<CudnnSdpa>(0, CudnnSdpaOptions{true, 100}));
    CHECK(attended(c.cuda, odd) == strips);
    attended(c.cuda);
    CHECK(c.cuda.attention_use().taken == 0);
    CHECK_THAT(c.cuda.attention_use().why, Catch::Contains("bytes of workspace, more than 100"));
    CHECK(fake_cuda::failures() == Told());
}

TEST_CASE("each call of cuDNN that fails is an error that names it, or a refusal that is told") {
    const auto strips = attended(Cuda());
    test::sdpa::Attended by_cudnn;
    {  // how many calls there are
        fake_cuda::reset();
        const Chosen c(cudnn());
        by_cudnn = attended(c.cuda);
    }
    CHECK(by_cudnn.out != strips.out);
    std::map<std::string, int> calls;
    for (const auto& call : fake_cuda::called())
        if (call.starts_with("cudnn")) calls[call] = fake_cuda::calls(call);
    CHECK(calls.size() == 10);
    int errors = 0;
    for (const auto& [call, count] : calls)
        for (int nth = 1; nth <= count; nth += nth < 4 || nth + 8 > count ? 1 : count / 8) {
            INFO(call << ", call " << nth << " of " << count);
            fake_cuda::reset();
            fake_cuda::fail(call, nth, CUDNN_STATUS_INTERNAL_ERROR);
            try {
                const Chosen c(cudnn());
                const auto got = attended(c.cuda);
                const auto& use = c.cuda.attention_use();
                // What cudnn-frontend asks and can do without changes nothing.
                CHECK(((use.refused == 0 && got == by_cudnn) ||
                       use.why.find("cuDNN's ") != std::string::npos));
                if (use.taken == 0) CHECK(got == strips);
            } catch (const ResourceError& e) {
                ++errors;
                CHECK_THAT(e.what(), Catch::Contains("cuDNN's ") || Catch::Contains(call));
            }
            CHECK(fake_cuda::failed());
            fake_cuda::reset();
            CHECK(fake_cuda::failures() == Told());
            CHECK(fake_cuda::alive() == Told());
        }
    CHECK(errors > 10);
}
