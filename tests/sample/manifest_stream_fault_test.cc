#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <random>
#include <thread>

#include "eyas/sample/manifest.hpp"
#include "tests/core/small_files.hpp"
#include "tests/sample/stream_samples.hpp"

using namespace eyas;
using namespace eyas::test;
using Catch::Matchers::Contains;

namespace {
// What a reader makes of bytes: the refs before the first bad line, and the error.
struct Seen {
    std::vector<SampleRef> refs = {};
    std::string error = {};
    bool finished = false;
};

Seen read_bytes(const std::filesystem::path& path, std::string_view bytes) {
    write_text_file(path, bytes);
    Seen seen;
    ManifestStreamReader reader(path);
    try {
        reader.poll(seen.refs);
    } catch (const DataError& e) {
        seen.error = e.what();
    }
    seen.finished = reader.finished();
    return seen;
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::size_t at = 0;
    for (std::size_t end; (end = text.find('\n', at)) != text.npos; at = end + 1)
        lines.push_back(text.substr(at, end + 1 - at));
    return lines;
}

struct Written {
    Scratch scratch = {};
    std::filesystem::path path = scratch.path() / "m.jsonl";
    std::string text = {};
    std::vector<std::string> lines = {};
    explicit Written(int n) {
        write_stream(path, n);
        text = read_text_file(path);
        lines = lines_of(text);
    }
};
}  // namespace

TEST_CASE("a stream that is cut anywhere gives its whole lines, and goes on from there") {
    const Written w(3);
    const auto cut = w.scratch.path() / "cut.jsonl";
    for (std::size_t n = 0; n < w.text.size(); ++n) {
        INFO("cut at byte " << n);
        const auto bytes = w.text.substr(0, n);
        const auto whole = static_cast<int>(lines_of(bytes).size());
        const auto seen = read_bytes(cut, bytes);
        CHECK(seen.error.empty());
        CHECK_FALSE(seen.finished);
        REQUIRE(ids_of(seen.refs) == ids_up_to(std::max(0, whole - 1)));
        REQUIRE_THROWS_AS(read_manifest(cut), DataError);
        {
            ManifestStreamWriter writer(cut, {.durable = false});
            for (int i = static_cast<int>(writer.refs()); i < 3; ++i) writer.append(stream_ref(i));
            writer.finish();
        }
        REQUIRE(ids_of(read_manifest(cut).refs) == ids_up_to(3));
        if (whole > 0) REQUIRE(read_text_file(cut) == w.text);  // the stream kept its id
    }
}

TEST_CASE("a reader waits through a torn line that is cut and written again") {
    const Written w(2);
    const auto path = w.scratch.path() / "torn.jsonl";
    write_text_file(path, w.lines[0] + w.lines[1].substr(0, 40));
    ManifestStreamReader reader(path);
    std::vector<SampleRef> refs;
    CHECK(reader.poll(refs) == 0);
    ManifestStreamWriter writer(path, {.durable = false});
    CHECK(std::filesystem::file_size(path) == w.lines[0].size());
    CHECK(reader.poll(refs) == 0);
    writer.append(stream_ref(5));
    CHECK(reader.poll(refs) == 1);
    CHECK(refs[0].sample_id == "run:5");
}

TEST_CASE("no flipped bit crashes a reader or gets a line past its end") {
    const Written w(2);
    const auto path = w.scratch.path() / "flipped.jsonl";
    std::mt19937 random(7);
    for (std::size_t n = 0; n < w.text.size(); ++n) {
        auto bytes = w.text;
        bytes[n] = static_cast<char>(bytes[n] ^ (1 << (random() % 8)));
        INFO("byte " << n);
        const auto seen = read_bytes(path, bytes);
        REQUIRE(seen.refs.size() <= 2);
        if (!seen.error.empty()) CHECK_THAT(seen.error, Contains("line "));
    }
}

TEST_CASE("bad lines are named") {
    const Written w(2);
    const auto path = w.scratch.path() / "bad.jsonl";
    const auto& l = w.lines;
    const auto refused = [&](const std::string& text, const std::string& words) {
        const auto seen = read_bytes(path, text);
        CHECK_THAT(seen.error, Contains(words));
        CHECK_THAT(seen.error, Contains(path.string()));
        CHECK_THROWS_AS(ManifestStreamWriter(path), DataError);
    };
    refused("{}\n", "line 1: not the header");
    refused(l[1], "line 1: not the header");
    refused("\n", "line 1: not valid JSON");
    refused("[1]\n", "line 1: not a JSON object");
    refused(R"({"stream_id": "", "schema_version": 1})" + std::string("\n"), "empty stream_id");
    refused(R"({"stream_id": "a", "schema_version": 9})" + std::string("\n"), "schema version 9");
    refused(R"({"stream_id": "a", "schema_version": 1, "x": 1})" + std::string("\n"), "'x'");
    refused(l[0] + l[1] + l[1], "line 3: sample_id 'run:0' occurs twice");
    refused(l[0] + l[1] + l[0], "line 3");
    refused(l[0] + l[1].substr(0, 30) + "\n" + l[2], "line 2: not valid JSON");
    refused(l[0] + l[1] + l[3], "counts 2 refs, the stream holds 1");
    refused(l[0] + "{\"end\": false, \"refs\": 0}\n", "end is false");
    refused(l[0] + "{\"end\": true, \"refs\": -1}\n", "line 2");
    refused(l[0] + "{\"end\": true}\n", "refs");
    refused(l[0] + "{\"failed\": 7, \"refs\": 0}\n", "failed");
    refused(l[0] + std::string(100'000, '[') + "\n", "nested deeper");
    refused(std::string(StreamLimits::line_bytes + 5, ' '), "line");
    refused(l[0] + std::string(StreamLimits::line_bytes + 5, ' '), "line");

    // Behind the end: the writer refuses it, the reader has what it wanted.
    write_text_file(path, w.text + l[1]);
    CHECK_THROWS_WITH(ManifestStreamWriter(path), Contains("line 5: something follows"));
    CHECK_THROWS_WITH(read_manifest(path), Contains("line 5: something follows"));
    write_text_file(path, w.text + "{");
    CHECK_THROWS_WITH(read_manifest(path), Contains("something follows"));
}

TEST_CASE("another stream under the same name is an error, not a mixture") {
    Scratch scratch;
    const auto path = scratch.path() / "m.jsonl", other = scratch.path() / "other.jsonl";
    write_stream(path, 2, false);
    ManifestStreamReader reader(path);
    std::vector<SampleRef> refs;
    reader.poll(refs);
    SECTION("renamed over it") {
        write_stream(other, 5, false);
        std::filesystem::rename(other, path);
        CHECK_THROWS_WITH(reader.poll(refs), Contains("another stream lies here"));
    }
    SECTION("removed and begun again") {
        std::filesystem::remove(path);
        CHECK_THROWS_AS(reader.poll(refs), DataError);
        write_stream(path, 5, false);
        CHECK_THROWS_AS(reader.poll(refs), DataError);
    }
    SECTION("shortened") {
        std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
        CHECK_THROWS_WITH(reader.poll(refs), Contains("lines that were read are gone"));
    }
    CHECK(refs.size() == 2);
}

TEST_CASE("a file that is no stream is refused and not changed, however it ends") {
    Scratch scratch;
    const auto path = scratch.path() / "notes";
    for (const std::string text :
         {"my notes", "[1, 2", "{", "{\"stream\": 1}", "{\"stream_id\"",
          "{\"sample_id\": \"run:0\"", "{\"failed\": \"why\", \"refs\": 0}\n", "two\nlines", "\n",
          " "}) {
        INFO(text);
        write_text_file(path, text);
        const bool torn = detail::header_beginning.starts_with(text);
        if (torn)  // what a producer that was killed while it began leaves
            CHECK(ManifestStreamWriter(path, {.durable = false}).refs() == 0);
        else
            CHECK_THROWS_AS(ManifestStreamWriter(path), DataError);
        CHECK((read_text_file(path) == text) == !torn);
    }
    CHECK(
        detail::stream_line(detail::header_to_json({"id"})).starts_with(detail::header_beginning));
}

TEST_CASE("a producer whose disk is full leaves whole lines, and is told at each further one") {
    Scratch scratch;
    const auto path = scratch.path() / "m.jsonl";
    std::size_t whole = 0;
    {
        ManifestStreamWriter writer(path, {.durable = false});
        writer.append(stream_ref(0));
        whole = std::filesystem::file_size(path);
        {
            const SmallFiles limit(whole + 20);
            CHECK_THROWS_WITH(writer.append(stream_ref(1)), Contains("cannot write"));
        }
        CHECK(std::filesystem::file_size(path) == whole);
        CHECK_THROWS_AS(writer.append(stream_ref(2)), ResourceError);  // although there is room now
        CHECK_THROWS_AS(writer.finish(), ResourceError);
        CHECK(std::filesystem::file_size(path) == whole);
    }
    std::vector<SampleRef> refs;
    CHECK(ManifestStreamReader(path).poll(refs) == 1);
    ManifestStreamWriter again(path, {.durable = false});
    again.append(stream_ref(1));
    again.finish();
    CHECK(ids_of(read_manifest(path).refs) == ids_up_to(2));

    std::filesystem::create_directories(scratch.path() / "dir");
    CHECK_THROWS_AS(ManifestStreamWriter(scratch.path() / "dir"), ResourceError);
    CHECK_THROWS_AS(ManifestStreamWriter("/dev/full"), DataError);
}

TEST_CASE("a manifest is read while its producer cuts it") {
    const Written w(2000);
    std::atomic<bool> done = false;
    std::thread producer([&] {
        while (!done) {
            std::filesystem::resize_file(w.path, w.lines[0].size());
            std::filesystem::resize_file(w.path, w.text.size());
        }
    });
    for (int refused = 0; refused < 300;) {  // it is whole at most once, at first
        try {
            const auto whole = read_manifest(w.path);
            CHECK(whole.refs.size() == 2000);
        } catch (const DataError&) {
            ++refused;
        }
    }
    done = true;
    producer.join();
}
