#include "eyas/sample/manifest_stream.hpp"

#include <catch2/catch.hpp>
#include <thread>

#include "eyas/sample/manifest.hpp"
#include "tests/sample/stream_samples.hpp"

using namespace eyas;
using namespace eyas::test;
using Catch::Matchers::Contains;

TEST_CASE("what is appended is read at once, in order, and a finished stream is a manifest") {
    Scratch scratch;
    const auto path = scratch.path() / "deep" / "manifest.jsonl";
    ManifestStreamReader reader(path);
    std::vector<SampleRef> refs;
    CHECK(reader.poll(refs) == 0);  // not there yet
    ManifestStreamWriter writer(path, {.durable = true, .producer = "a test"});
    CHECK(reader.poll(refs) == 0);
    REQUIRE(reader.header());
    CHECK(*reader.header() == writer.header());
    CHECK(reader.header()->stream_id.size() == 32);
    CHECK(reader.producer() == "the producer (a test)");
    for (int i = 0; i < 3; ++i) {
        writer.append(stream_ref(i));
        CHECK(reader.poll(refs) == 1);
        CHECK(refs.back() == stream_ref(i));
    }
    CHECK_FALSE(reader.ended());
    CHECK_THROWS_WITH(read_manifest(path), Contains("no end yet"));
    writer.finish();
    CHECK(writer.finished());
    CHECK(reader.poll(refs) == 0);
    CHECK(reader.finished());
    CHECK(read_manifest(path).refs == refs);
    CHECK_THROWS_AS(writer.append(stream_ref(9)), ContractError);
}

TEST_CASE("every stream has an id of its own") {
    Scratch scratch;
    const ManifestStreamWriter a(scratch.path() / "a"), b(scratch.path() / "b");
    CHECK(a.header().stream_id != b.header().stream_id);
}

TEST_CASE("a writer that starts again goes on with the same stream") {
    Scratch scratch;
    const auto path = scratch.path() / "m.jsonl";
    write_stream(path, 3, false);
    std::vector<SampleRef> present;
    ManifestStreamWriter again(path, {}, [&](const SampleRef& r) { present.push_back(r); });
    CHECK(ids_of(present) == ids_up_to(3));
    CHECK(again.contains("run:2"));
    CHECK_FALSE(again.contains("run:3"));
    CHECK_THROWS_AS(again.append(stream_ref(1)), ContractError);  // is there
    again.append(stream_ref(3));
    again.finish();
    CHECK(ids_of(read_manifest(path).refs) == ids_up_to(4));
}

TEST_CASE("a failure is told, and a repaired producer goes on behind it") {
    Scratch scratch;
    const auto path = scratch.path() / "m.jsonl";
    {
        ManifestStreamWriter writer(path);
        writer.append(stream_ref(0));
        writer.fail("disk full: \xff" + std::string(5000, 'x'));
    }
    ManifestStreamReader reader(path);
    std::vector<SampleRef> refs;
    CHECK(reader.poll(refs) == 1);
    REQUIRE(reader.failure());
    CHECK_THAT(*reader.failure(), Contains("disk full"));
    CHECK_THROWS_WITH(read_manifest(path), Contains("the producer failed: disk full"));
    write_stream(path, 0, false);  // another attempt that stops at once
    CHECK_THROWS_WITH(read_manifest(path), Contains("no end yet"));
    ManifestStreamWriter writer(path);
    CHECK(writer.refs() == 1);
    writer.append(stream_ref(1));
    writer.finish();
    CHECK(ids_of(read_manifest(path).refs) == ids_up_to(2));
}

TEST_CASE("only one producer writes a stream") {
    Scratch scratch;
    const ManifestStreamWriter writer(scratch.path() / "m.jsonl");
    CHECK_THROWS_WITH(ManifestStreamWriter(scratch.path() / "m.jsonl"),
                      Contains("another producer"));
}

TEST_CASE("a stream carries metadata only") {
    Scratch scratch;
    ManifestStreamWriter writer(scratch.path() / "m.jsonl");
    auto ref = stream_ref(0);
    ref.metadata["hidden"] = std::vector<double>(1000, 0.5);
    CHECK_THROWS_AS(writer.append(ref), ContractError);
    ref = stream_ref(0);
    ref.run_id = "\xff not UTF-8";
    CHECK_THROWS_AS(writer.append(ref), ContractError);
    ref = stream_ref(0);
    ref.feature_store_uri = std::string(StreamLimits::line_bytes, 'x');
    CHECK_THROWS_WITH(writer.append(ref), Contains("longer than"));
    writer.append(stream_ref(0));  // nothing of them was written
    writer.finish();
    CHECK(ids_of(read_manifest(writer.path()).refs) == ids_up_to(1));
}

TEST_CASE("waiting ends with a ref, at the stop flag, or with the producer's name") {
    Scratch scratch;
    const auto path = scratch.path() / "m.jsonl";
    ManifestStreamReader reader(path);
    std::vector<SampleRef> refs;
    std::atomic<bool> on = true;
    const auto keep_waiting = [&] { return on.load(); };
    CHECK_THROWS_AS(reader.wait_for_header(refs, std::chrono::milliseconds(30), keep_waiting),
                    TransportError);
    std::thread producer([&] { write_stream(path, 1, false); });
    CHECK(reader.wait_for_header(refs, std::chrono::milliseconds(0), keep_waiting));
    if (refs.empty()) CHECK(reader.wait(refs, std::chrono::seconds(60), keep_waiting));
    producer.join();
    CHECK(ids_of(refs) == ids_up_to(1));
    CHECK_THROWS_WITH(reader.wait(refs, std::chrono::milliseconds(30), keep_waiting),
                      Contains("the producer (a test)"));
    std::thread stopper([&] { on = false; });
    CHECK_FALSE(reader.wait(refs, std::chrono::milliseconds(0), keep_waiting));
    stopper.join();
}

TEST_CASE("a reader beside a writer takes every ref once, in order") {
    Scratch scratch;
    const auto path = scratch.path() / "m.jsonl";
    constexpr int n = 500;
    std::thread producer([&] { write_stream(path, n); });
    ManifestStreamReader reader(path);
    std::vector<SampleRef> refs;
    while (!reader.ended()) reader.wait(refs, std::chrono::milliseconds(0), [] { return true; });
    producer.join();
    CHECK(ids_of(refs) == ids_up_to(n));
}
