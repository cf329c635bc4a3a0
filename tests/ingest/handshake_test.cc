#include "eyas/ingest/handshake.hpp"

#include <catch2/catch.hpp>
#include <chrono>

#include "tests/ingest/feature_directory.hpp"

using namespace eyas;
using namespace std::chrono_literals;

TEST_CASE("a consumer waits until the producer is done") {
    const test::FeatureDirectory dir("handshake");
    const ManifestHandshake h{dir.path() / "sub" / "manifest.json"};
    h.begin();
    CHECK_THROWS_AS(h.wait(0s), TransportError);
    CHECK_FALSE(h.wait(60s, [] { return false; }));
    std::thread producer([&] {
        std::this_thread::sleep_for(30ms);
        write_text_file(h.manifest, "{}");
        h.done();
    });
    CHECK(h.wait(60s));
    CHECK(std::filesystem::exists(h.manifest));
    producer.join();
}

TEST_CASE("a producer that gave up says why; what an earlier attempt left is not believed") {
    const test::FeatureDirectory dir("handshake_failed");
    const ManifestHandshake h{dir.path() / "manifest.json"};
    h.begin();
    h.failed("disk full");
    CHECK_THROWS_WITH(h.wait(60s), Catch::Matchers::Contains("disk full"));
    h.begin();
    h.done();
    h.begin();
    CHECK_THROWS_WITH(h.wait(0s), Catch::Matchers::Contains("no producer finished"));
}
