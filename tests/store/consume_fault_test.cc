// Consuming what is never removed, here and through a pool.
#include "conformance.hpp"
#include "eyas/ingest/scan.hpp"
#include "eyas/store/local_files.hpp"
#include "eyas/transport/posix.hpp"
#include "scratch.hpp"
#include "served_pool.hpp"
#include "tests/store/packed_samples.hpp"

using namespace eyas;
using Sockets = Transport<Posix>;

TEST_CASE("samples that are only read where they lie are not consumed, and that is said") {
    test::Scratch dir;
    const test::PackSource source(2);
    {
        AtomicFile file(dir.path() / "a.ckpt");
        write_torch_file(file, source.samples[0].tensors);
        file.commit();
    }
    auto refs = scan_features(dir.path()).refs;
    test::PackSource packed(2);
    refs.push_back(pack(packed.store, packed.manifest, dir.path() / "packed", {.durable = false})
                       .manifest.refs[0]);
    REQUIRE(refs.size() == 2);
    const StorePolicy once{.retain_on_release = false};
    const auto check = [&](auto& store) {
        for (const auto& ref : refs) {
            CHECK_THROWS_WITH(store.consume(ref), Catch::Contains("never removed"));
            CHECK_THROWS_AS(store.consume(ref), ContractError);
        }
    };
    Store<LocalFiles> files({.root = dir.path()}, once);
    check(files);
    test::Served<Sockets, LocalFiles> pool({.root = dir.path()}, "eyas+tcp://127.0.0.1:0");
    Store<RemotePool<Sockets>> remote(pool.client(), once);
    check(remote);
    CHECK(std::filesystem::exists(dir.path() / "a.ckpt"));
    const auto put = remote.put(conformance::prototype("p"), conformance::Sample(1).features());
    CHECK(remote.consume(put));
    CHECK(remote.health().resident_objects == 0);
}
