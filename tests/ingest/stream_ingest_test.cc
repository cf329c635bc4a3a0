#include "eyas/ingest/stream_ingest.hpp"

#include <catch2/catch.hpp>
#include <thread>

#include "eyas/sample/manifest.hpp"
#include "tests/ingest/feature_directory.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::FakeStore;
using test::FeatureDirectory;

namespace {
std::vector<std::string> files_of(const std::filesystem::path& stream) {
    std::vector<std::string> files;
    for (const auto& r : read_manifest(stream).refs) files.push_back(r.metadata.at("file"));
    return files;
}
}  // namespace

TEST_CASE("one look puts all files and ends the stream, with the ids that ingest gives") {
    const FeatureDirectory dir("stream_once");
    for (const char* f : {"a/2.ckpt", "a/10.ckpt", "b/1.ckpt"}) dir.add(f, 1);
    const auto stream = dir.path() / "s.jsonl";
    FakeStore store, plain;
    StreamIngest ingest_stream(store, dir.path(), stream, {.durable = false},
                               {.ingest = {.run_id = "r"}});
    std::vector<std::size_t> done;
    const auto report = ingest_stream.run([&](const IngestProgress& p) { done.push_back(p.done); });
    CHECK(report.added == 3);
    CHECK_FALSE(report.stopped);
    CHECK(done == std::vector<std::size_t>{1, 2, 3});
    auto told = read_manifest(stream);
    CHECK(files_of(stream) == std::vector<std::string>{"a/10.ckpt", "a/2.ckpt", "b/1.ckpt"});
    for (auto& r : told.refs)
        for (const char* key : {"file", "file_bytes", "file_mtime_ns"})
            CHECK(r.metadata.erase(key) == 1);
    CHECK(told == ingest(plain, dir.path(), {.run_id = "r"}).manifest);
}

TEST_CASE("a watch takes files in the order of their arrival until it is told the end") {
    const FeatureDirectory dir("stream_watch");
    const auto live = dir.path() / "live", stream = dir.path() / "s.jsonl", end = dir.path() / "x";
    FakeStore store;
    StreamIngest watch(store, live, stream, {.durable = false},
                       {.until = end, .interval = std::chrono::milliseconds(1)});
    // Each file appears when the one before was told; the last ones beside the end.
    const std::vector<std::string> later{"5.ckpt", "3.ckpt", "4.ckpt"};
    std::size_t next = 0;
    std::thread capture([&] { dir.add("live/9.ckpt", 1); });
    watch.run([&](const IngestProgress&) {
        if (next < later.size()) dir.add("live/" + later[next++], 1);
        if (next == later.size()) write_text_file(end, "done\n");
    });
    capture.join();
    CHECK(files_of(stream) == std::vector<std::string>{"9.ckpt", "5.ckpt", "3.ckpt", "4.ckpt"});
}

TEST_CASE("what was stopped goes on where its stream ends, and a told sample is not put again") {
    const FeatureDirectory dir("stream_again");
    for (const char* f : {"0.ckpt", "1.ckpt", "2.ckpt"}) dir.add(f, 1);
    const auto stream = dir.path() / "s.jsonl";
    FakeStore store;
    std::atomic<bool> stop = false;
    {
        StreamIngest first(store, dir.path(), stream, {.durable = false}, {.stop = &stop});
        const auto report = first.run([&](const IngestProgress&) { stop = true; });
        CHECK(report.stopped);
        CHECK(report.added == 1);
    }
    CHECK_THROWS_WITH(read_manifest(stream), Contains("no end yet"));
    std::filesystem::remove(dir.path() / "0.ckpt");  // told files need not stay
    StreamIngest again(store, dir.path(), stream, {.durable = false}, {});
    CHECK(again.run().added == 2);
    CHECK(files_of(stream) == std::vector<std::string>{"0.ckpt", "1.ckpt", "2.ckpt"});
    CHECK(again.run().refs == 3);  // nothing is left to do
}

TEST_CASE("bad files end it, or are left out; the width stays that of the first sample") {
    const FeatureDirectory dir("stream_bad");
    dir.add("0.ckpt", 1);
    write_text_file(dir.path() / "1.ckpt", "this is no torch file");
    dir.add("3.ckpt", 1);
    const auto stream = dir.path() / "s.jsonl";
    FakeStore store;
    {
        StreamIngest strict(store, dir.path(), stream, {.durable = false}, {});
        CHECK_THROWS_WITH(strict.run(), Contains("1.ckpt"));
        CHECK(strict.stream().refs() == 1);
    }
    dir.add("2.ckpt", 1, [](test::FakeSample& s) { s = test::FakeSample(6, 5, 1); });
    StreamIngest lax(store, dir.path(), stream, {.durable = false}, {.ingest = {.skip_bad = true}});
    const auto report = lax.run();
    CHECK(report.bad.size() == 2);
    CHECK(files_of(stream) == std::vector<std::string>{"0.ckpt", "3.ckpt"});
    CHECK(read_manifest(stream).refs[1].sample_id == "disagg:00000001");
}

TEST_CASE("a stream that ingest did not write is not gone on with") {
    const FeatureDirectory dir("stream_other");
    const auto stream = dir.path() / "s.jsonl";
    {
        ManifestStreamWriter writer(stream);
        writer.append({.sample_id = "x", .run_id = "y"});
    }
    FakeStore store;
    CHECK_THROWS_WITH(StreamIngest(store, dir.path(), stream, {}, {}), Contains("'file'"));
}

TEST_CASE("an end that counts its files is believed when they are all there") {
    const FeatureDirectory dir("stream_count");
    const auto live = dir.path() / "live", stream = dir.path() / "s.jsonl";
    dir.add("live/0.ckpt", 1);
    dir.add("live/1.ckpt", 1);
    FakeStore store;
    SECTION("files may be seen after it") {
        write_capture_done(live, 3);
        StreamIngest watch(
            store, live, stream, {.durable = false},
            {.until = capture_done_file(live), .interval = std::chrono::milliseconds(1)});
        std::thread late([&] { dir.add("live/2.ckpt", 1); });
        watch.run();
        late.join();
        CHECK(files_of(stream).size() == 3);
    }
    SECTION("one that is taken away meanwhile, as a capture that begins again does") {
        write_capture_done(live, 2);
        StreamIngest watch(
            store, live, stream, {.durable = false},
            {.until = capture_done_file(live), .interval = std::chrono::milliseconds(1)});
        watch.run([&](const IngestProgress& p) {
            if (p.done == 1) std::filesystem::remove(capture_done_file(live));
            if (p.done != 2) return;
            dir.add("live/2.ckpt", 1);
            write_capture_done(live, 3);
        });
        CHECK(files_of(stream).size() == 3);
    }
    SECTION("files that never come") {
        write_capture_done(live, 3);
        StreamIngest watch(store, live, stream, {.durable = false},
                           {.until = capture_done_file(live), .patience = {}});
        CHECK_THROWS_WITH(watch.run(), Contains("counts 3 feature files, 2 are there"));
        CHECK_FALSE(watch.stream().finished());
    }
    SECTION("ends of other makers") {
        for (const char* text : {"done\n", "", "{\"files\": -1}", "{\"files\": \"3\"}", "[3]"}) {
            write_text_file(dir.path() / "end", text);
            CHECK(declared_end(dir.path() / "end") == DeclaredEnd{});
        }
        CHECK_FALSE(declared_end(dir.path() / "none"));
    }
}

TEST_CASE("files that a finished stream does not know are told, and it is not changed") {
    const FeatureDirectory dir("stream_finished");
    dir.add("0.ckpt", 1);
    const auto stream = dir.path() / "s.jsonl";
    FakeStore store;
    const StreamIngestOptions lax{.ingest = {.skip_bad = true}};
    write_text_file(dir.path() / "1.ckpt", "this is no torch file");
    StreamIngest(store, dir.path(), stream, {.durable = false}, lax).run();
    const auto text = read_text_file(stream);
    CHECK(StreamIngest(store, dir.path(), stream, {.durable = false}, lax).run().added == 0);
    dir.add("2.ckpt", 1);
    dir.add("3.ckpt", 1);
    CHECK_THROWS_WITH(StreamIngest(store, dir.path(), stream, {.durable = false}, lax),
                      Contains("2 feature files are not in it") && Contains("2.ckpt") &&
                          Contains("another stream"));
    CHECK(read_text_file(stream) == text);
}

TEST_CASE("a file that only has the name of a told one is refused; a moved directory is not") {
    const FeatureDirectory dir("stream_names");
    for (const char* f : {"a/0.ckpt", "a/1.ckpt", "b/0.ckpt", "b/1.ckpt"}) dir.add(f, 1);
    std::filesystem::last_write_time(
        dir.path() / "b/0.ckpt",
        std::filesystem::last_write_time(dir.path() / "a/0.ckpt") + std::chrono::seconds(1));
    const auto stream = dir.path() / "s.jsonl";
    FakeStore store;
    std::atomic<bool> stop = false;
    StreamIngest(store, dir.path() / "a", stream, {.durable = false}, {.stop = &stop})
        .run([&](const IngestProgress&) { stop = true; });
    {
        StreamIngest other(store, dir.path() / "b", stream, {.durable = false}, {});
        CHECK_THROWS_WITH(other.run(), Contains("another file of this name") && Contains("b/0"));
        CHECK(other.stream().refs() == 1);
    }
    std::filesystem::rename(dir.path() / "a", dir.path() / "moved");
    CHECK(StreamIngest(store, dir.path() / "moved", stream, {.durable = false}, {}).run().added ==
          1);
    CHECK_THROWS_WITH(StreamIngest(store, dir.path() / "b", stream, {.durable = false}, {}),
                      Contains("another file of this name"));
    // A stream of a version that did not record them.
    auto refs = read_manifest(stream).refs;
    const auto old = dir.path() / "old.jsonl";
    {
        ManifestStreamWriter writer(old, {.durable = false});
        refs[0].metadata.erase("file_bytes");
        refs[0].metadata.erase("file_mtime_ns");
        writer.append(refs[0]);
    }
    CHECK(StreamIngest(store, dir.path() / "b", old, {.durable = false}, {}).run().added == 1);
}
