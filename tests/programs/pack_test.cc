#include <catch2/catch.hpp>

#include "eyas/format/safetensors.hpp"
#include "tests/programs/tiny_job.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::TinyJob;

namespace {
std::vector<std::string> pack_into(const TinyJob& job, const std::string& out,
                                   const std::vector<std::string>& source,
                                   const std::vector<std::string>& more = {}) {
    std::vector<std::string> words{"pack", "--out", job.path(out)};
    words.insert(words.end(), source.begin(), source.end());
    words.insert(words.end(), more.begin(), more.end());
    return words;
}
}  // namespace

TEST_CASE("training from packed shards ends with the same bits, whichever store reads them") {
    const TinyJob job;
    job.capture();
    job.run(job.ingest());
    job.run(job.train("plain", job.disaggregated()));
    const auto p = job.run(
        pack_into(job, "packed", job.disaggregated(), {"--shard-bytes", "20000", "--json"}));
    const auto said = parse_json(p->last_line(), "pack");
    CHECK(said.at("samples") == 12);
    CHECK(said.at("shards").get<int>() > 1);
    job.run(job.train("packed-run", {"--store", "packed:" + job.path("packed")}));
    job.run({"compare", job.path("packed-run"), job.path("plain")});
    const auto manifest = job.path("packed/manifest.json");
    job.run(
        job.train("files-run", {"--store", "file:" + job.path("packed"), "--manifest", manifest}));
    job.run({"compare", job.path("files-run"), job.path("plain")});
    job.run(job.train("shared-run", {"--store", "disagg:" + job.path("") + "?store_id=packed",
                                     "--manifest", manifest}));
    job.run({"compare", job.path("shared-run"), job.path("plain")});

    const auto server = job.start({"serve", "--store", "packed:" + job.path("packed"), "--listen",
                                   "eyas+unix://" + job.path("socket")});
    server->await(" on eyas+unix");
    job.run(job.train("served-run",
                      {"--store", "eyas+unix://" + job.path("socket"), "--manifest", manifest}));
    job.run({"compare", job.path("served-run"), job.path("plain")});
    server->signal(SIGTERM);
    CHECK(server->wait() == 0);
}

TEST_CASE("packing does not replace the manifest of other samples unasked") {
    const TinyJob job;
    job.capture();
    job.run(job.ingest());
    const auto before = read_text_file(job.path("manifest.json"));
    std::filesystem::create_directories(job.path("out"));
    write_text_file(job.path("out/manifest.json"), before);
    const auto words = pack_into(job, "out", job.disaggregated());
    CHECK_THAT(job.run(words, 1)->errors(), Contains("would be replaced"));
    CHECK(read_text_file(job.path("out/manifest.json")) == before);
    job.run(pack_into(job, "out", job.disaggregated(), {"--manifest-out", job.path("m.json")}));
    CHECK(read_text_file(job.path("out/manifest.json")) == before);
}

TEST_CASE("float8 shards train and are inspected; a damaged one is found") {
    const TinyJob job;
    job.capture();
    job.run(pack_into(job, "fp8", job.colocated(), {"--dtype", "fp8_e4m3"}));
    job.run(job.train("run", {"--store", "packed:" + job.path("fp8")}));
    const auto shard = job.path("fp8/shard-00000.safetensors");
    const auto said = job.run({"inspect", shard});
    CHECK_THAT(said->output(), Contains("shard of packed samples, all of them good"));
    CHECK_THAT(job.run({"inspect", job.path("fp8")})->output(), Contains("samples            12"));
    auto bytes = read_text_file(shard);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    write_text_file(shard, bytes);
    CHECK_THAT(job.run({"inspect", shard}, 1)->errors(), Contains("checksum"));
}

TEST_CASE("a bit that flipped in a stored object is found, in the store and in the file alone") {
    const TinyJob job;
    job.capture();
    job.run(job.ingest());
    CHECK_THAT(job.run({"inspect", job.path("store")})->output(), Contains("all of them good"));
    std::filesystem::path object;
    for (const auto& e : std::filesystem::recursive_directory_iterator(job.path("store")))
        if (e.path().extension() == ".safetensors") object = e.path();
    auto bytes = read_text_file(object);
    const SafetensorsFile file(object);
    const auto at = static_cast<std::size_t>(
        file.at("hidden_state").data - reinterpret_cast<const std::byte*>(file.bytes().data()));
    bytes[at] = static_cast<char>(bytes[at] ^ 1);  // the lowest bit of a number: still a number
    write_text_file(object, bytes);
    for (const auto& what : {job.path("store"), object.string()}) {
        const auto p = job.run({"inspect", what}, 1);
        CHECK_THAT(p->output() + p->errors(),
                   Contains(object.string()) && Contains("checksum of 'hidden_state' differs"));
    }
}

TEST_CASE("training from linked files ends with the same bits") {
    const TinyJob job;
    job.capture();
    job.run(job.train("plain", job.colocated()));
    auto words = job.ingest();
    words.push_back("--link");
    job.run(words);
    job.run(job.train("linked", job.disaggregated()));
    job.run({"compare", job.path("linked"), job.path("plain")});
    words[4] = "packed:" + job.path("features");  // beside the files
    job.run(words);
    job.run(job.train("beside", {"--store", words[4], "--manifest", job.path("manifest.json")}));
    job.run({"compare", job.path("beside"), job.path("plain")});
}
