#include <catch2/catch.hpp>
#include <fstream>

#include "eyas/ingest/pack.hpp"
#include "eyas/ingest/scan.hpp"
#include "eyas/loader/loader.hpp"
#include "eyas/store/local_files.hpp"
#include "eyas/store/packed_shards.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/transport/posix.hpp"
#include "tests/loader/fake_store.hpp"
#include "tests/store/forked.hpp"
#include "tests/store/scratch.hpp"
#include "tests/store/served_pool.hpp"

using namespace eyas;
namespace fs = std::filesystem;

// A consumer's memory is its ring, whatever the store holds. What comes on top does not grow with
// either: stacks and heaps of its threads, the stretch of a mapping that each copies from.
namespace {
constexpr std::int64_t rows = 1024, width = 512;  // 4 MiB and 16 KiB a sample
constexpr int samples = 96, slots = 21;
constexpr std::int64_t ring_bytes = std::int64_t{slots} * 4500 * 1024;

/// Bytes of a line of /proc/self/status.
std::int64_t status_bytes(const std::string& name) {
    std::ifstream f("/proc/self/status");
    for (std::string line; std::getline(f, line);)
        if (line.starts_with(name + ":")) return std::stoll(line.substr(name.size() + 1)) * 1024;
    return -1;
}

/// Most resident memory that f() added to what there was before.
template <class F>
std::int64_t added_by(const F& f) {
    std::ofstream("/proc/self/clear_refs") << 5;  // the peak counts from here
    const auto before = status_bytes("VmRSS");
    f();
    return status_bytes("VmHWM") - before;
}

template <class S>
void check_memory(S& store, const Manifest& manifest) {
    LoaderOptions o;
    o.prefetch = slots - 1;
    o.threads = 2;
    o.ring_bytes = ring_bytes;
    o.epochs = 2;
    int batches = 0;
    const auto added = added_by([&] {
        Loader loader(store, manifest, o);
        while (loader.next()) ++batches;
    });
    CHECK(batches == 2 * samples);
    CHECK(added > ring_bytes / 2);  // it does measure the ring
    CHECK(added < ring_bytes * 11 / 10);
}

Manifest fill(Store<SharedDirectory>& store) {
    Manifest m;
    for (int i = 0; i < samples; ++i)
        m.refs.push_back(store.put({.sample_id = "s:" + std::to_string(i), .run_id = "s"},
                                   test::FakeSample(rows, width, i + 1).tensors));
    return m;
}
}  // namespace

TEST_CASE("a consumer holds its ring and little else") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path(), .files = {.durable = false}};
    Store<SharedDirectory> store(place);
    const auto manifest = fill(store);
    SECTION("shared directory") { check_memory(store, manifest); }
    SECTION("packed shards") {
        const auto packed = pack(store, manifest, dir.path() / "packed",
                                 {.shard_bytes = 64 << 20, .durable = false});
        Store<PackedShards> shards({.root = dir.path() / "packed"});
        check_memory(shards, packed.manifest);
    }
    SECTION("local files") {
        fs::create_directories(dir.path() / "files");
        for (int i = 0; i < samples; ++i)
            write_torch_file(dir.path() / "files" / (std::to_string(i) + ".ckpt"),
                             test::FakeSample(rows, width, i + 1).tensors, {.durable = false});
        Store<LocalFiles> files({.root = dir.path() / "files"});
        check_memory(files, scan_features(dir.path() / "files"));
    }
}

TEST_CASE("so does a consumer of a pool, mapped or sent") {
    using Sockets = Transport<Posix>;
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path(), .files = {.durable = false}};
    const auto manifest = [&] {
        Store<SharedDirectory> store(place);
        return fill(store);
    }();
    const auto said = dir.path() / "address";
    conformance::Process pool([&] {
        test::Served<Sockets, SharedDirectory> served(place, "eyas+tcp://127.0.0.1:0", {}, true);
        write_text_file(said, served.server->address().text());
        for (;;) ::pause();
    });
    for (int i = 0; i < 3000 && !fs::exists(said); ++i) ::usleep(10'000);
    for (const bool mapped : {true, false}) {
        Store<RemotePool<Sockets>> store(
            {.address = parse_address(read_text_file(said)), .client = {.same_host = mapped}});
        check_memory(store, manifest);
    }
}
