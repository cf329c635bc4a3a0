// Pools and clients that end, start again, change their token, or are full.
#include "conformance.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/transport/posix.hpp"
#include "scratch.hpp"
#include "served_elsewhere.hpp"

using namespace eyas;
using conformance::eventually;
using conformance::prototype;
using conformance::Sample;
using Sockets = Transport<Posix>;
using Pool = RemotePool<Sockets>;

namespace {
template <class B>
using Served = test::Served<Sockets, B>;
}  // namespace

TEST_CASE("a client that is killed leaves no lease") {
    test::Scratch dir;
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    const auto file = dir.path() / "address";
    const auto child = ::fork();
    if (child == 0) {
        while (!std::filesystem::exists(file)) ::usleep(1000);
        Store<Pool> store(Pool::Options{.address = parse_address(read_text_file(file))});
        const auto ref = store.put(prototype("a"), Sample(1).features());
        const auto lease = store.acquire(ref), second = store.acquire(ref);
        if (::write(ready[1], "x", 1) != 1) ::_exit(1);
        for (;;) ::pause();
    }
    Served<Memory> pool({}, "eyas+tcp://127.0.0.1:0");
    write_text_file(file, pool.server->address().text());
    char c;
    REQUIRE(::read(ready[0], &c, 1) == 1);
    REQUIRE(pool.service.leases() == 2);
    REQUIRE(pool.store.collect(std::chrono::seconds(0)) == 0);  // it is held
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    REQUIRE(eventually([&] { return pool.service.leases() == 0 && pool.server->links() == 0; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    REQUIRE(pool.store.collect(std::chrono::seconds(0)) == 1);
}

TEST_CASE("a pool that is killed: its owner is lost, mapped views live on, a new one is refused") {
    test::Scratch dir;
    const auto listen = "eyas+unix://" + (dir.path() / "socket").string();
    const auto first = test::serve<Memory>({}, listen, dir.path() / "one");
    Store<Pool> store(
        Pool::Options{.address = test::said(dir.path() / "one"),
                      .client = {.reconnect_timeout = std::chrono::milliseconds(200)}});
    const auto ref = store.put(prototype("a"), Sample(1).features());
    const auto lease = store.acquire(ref);
    first->kill();
    REQUIRE_THROWS_AS(store.acquire(ref), OwnerLostError);
    REQUIRE(conformance::same_bytes(store.view(lease)[0].tensor, Sample(1).ids));
    const auto second = test::serve<Memory>({}, listen, dir.path() / "two");
    test::said(dir.path() / "two");
    REQUIRE_THROWS_AS(store.acquire(ref), StaleReferenceError);  // it lay in the other's memory
    store.put(prototype("b"), Sample(2).features());
    REQUIRE(store.backend().client().restarts() == 1);
    second->kill();
}

TEST_CASE("a lease goes on after its pool was started again on the same directory") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path()};
    auto pool = std::make_unique<Served<SharedDirectory>>(place, "eyas+tcp://127.0.0.1:0");
    const auto address = pool->server->address();
    Store<Pool> store(pool->client());
    const auto ref = store.put(prototype("a"), Sample(1).features());
    const auto lease = store.acquire(ref);
    pool.reset();
    pool = std::make_unique<Served<SharedDirectory>>(place, address.text());
    REQUIRE(conformance::same_bytes(store.view(lease)[0].tensor, Sample(1).ids));
    REQUIRE(store.backend().client().restarts() == 1);
}

TEST_CASE("a pool's token is asked at attach and a changed one is refused at each call") {
    const StorePolicy policy{.auth_token = "right"};
    auto pool =
        std::make_unique<Served<Memory>>(Memory::Options{}, "eyas+tcp://127.0.0.1:0", policy);
    const auto address = pool->server->address();
    Store<Pool> store(pool->client("right"), policy);
    const auto ref = store.put(prototype("a"), Sample(1).features());
    REQUIRE_THROWS_AS(Store<Pool>(pool->client()), AuthenticationError);
    REQUIRE_THROWS_AS(Store<Pool>(pool->client("wrong"), {.auth_token = "wrong"}),
                      AuthenticationError);
    REQUIRE_THROWS_AS(Store<Pool>(pool->client("right"), {.auth_token = "wrong"}),
                      AuthenticationError);
    pool.reset();
    pool = std::make_unique<Served<Memory>>(Memory::Options{}, address.text(),
                                            StorePolicy{.auth_token = "changed"});
    REQUIRE_THROWS_AS(store.acquire(ref), AuthenticationError);
    REQUIRE_THROWS_AS(store.put(prototype("b"), Sample(1).features()), AuthenticationError);
    Served<Memory> open({}, "eyas+tcp://127.0.0.1:0");
    REQUIRE_THROWS_AS(Store<Pool>(open.client("right"), policy), AuthenticationError);
}

TEST_CASE("quota and damage are told with their types through the wire") {
    test::Scratch dir;
    Served<SharedDirectory> pool({.root = dir.path()}, "eyas+tcp://127.0.0.1:0",
                                 {.quota_bytes = 1'000'000});
    Store<Pool> store(pool.client());
    const auto ref = store.put(prototype("a"), Sample(1, 1000).features());
    REQUIRE_THROWS_AS(store.put(prototype("b"), Sample(2, 100'000).features()), ResourceError);
    REQUIRE(store.health().resident_objects == 1);
    for (const auto& e : std::filesystem::directory_iterator(dir.path() / "eyas"))
        if (e.path().extension() == ".safetensors") {
            const detail::Fd f(::open(e.path().c_str(), O_WRONLY));
            REQUIRE(::pwrite(f.get(), "x", 1, 8000) == 1);
        }
    REQUIRE_THROWS_AS(conformance::require_content(store, ref, Sample(1, 1000)), DataError);
    REQUIRE(store.health().active_leases == 0);
}
