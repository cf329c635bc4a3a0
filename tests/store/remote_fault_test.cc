// Pools whose network fails: bytes are cut off, held up, lost, doubled, exchanged or flipped by a
// process in between; answers get lost; pools are started again.
#include <random>

#include "conformance_fault.hpp"
#include "conformance_process.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/transport/posix.hpp"
#include "lossy.hpp"
#include "proxy.hpp"
#include "served_elsewhere.hpp"

using namespace eyas;
using conformance::Damage;
using conformance::demand;
using conformance::eventually;
using conformance::Process;
using conformance::prototype;
using conformance::Sample;
using Sockets = Transport<Posix>;
using Pool = RemotePool<Sockets>;
using test::said;
using test::serve;

namespace {
/// Puts and reads through a damaged connection. Each call ends right, or with one of eyas' errors;
/// what was acknowledged is right when it is looked at directly. Whether all went well.
bool use(const Address& proxy, Store<Pool>& direct, const Sample& a, const std::string& id) {
    bool all = true;
    const auto attempt = [&](const auto& f) {
        try {
            f();
        } catch (const Error&) {
            all = false;
        }
    };
    attempt([&] {
        Store<Pool> store(
            Pool::Options{.address = proxy,
                          .client = {.timeout = std::chrono::milliseconds(300),
                                     .reconnect_timeout = std::chrono::milliseconds(100)}});
        attempt([&] {
            const auto ref = store.put(prototype(id), a.features());
            REQUIRE(conformance::has_content(direct, ref, a));
            const bool right = conformance::has_content(store, ref, a);
            REQUIRE(right);  // never a wrong byte
        });
        attempt([&] {
            const auto resident =
                store.health().resident_objects;  // Catch2 would take what it throws
            REQUIRE(resident <= 1);
        });
    });
    for (const auto& o : direct.backend().objects()) {
        REQUIRE(o.key.sample == id);  // nothing under another name
        auto ref = prototype(id);
        ref.metadata["generation"] = o.key.generation;
        REQUIRE(conformance::has_content(direct, ref, a));
        direct.backend().erase(o.key);
    }
    return all;
}

void check_damage(const std::string& listen, const std::filesystem::path& dir) {
    static int n = 0;
    const auto fresh = [&] {
        ++n;
        return listen.ends_with('-') ? listen + std::to_string(n) : listen;
    };
    const auto file = dir / ("pool" + std::to_string(n));
    const auto pool = serve<Memory>({}, fresh(), file);
    const auto server = said(file);
    std::mt19937 random(7);
    const Sample a(3, 800);
    int good = 0, runs = 0;
    for (int kind = Damage::Cut; kind <= Damage::Flip; ++kind)
        for (const bool to_client : {false, true})
            for (const std::uint64_t most : {120u, 400u, 1500u, 12'000u}) {
                const Damage damage{static_cast<Damage::Kind>(kind), to_client, random() % most,
                                    runs % 2 ? 1 : 1000};
                const auto at = parse_address(fresh());
                const auto heard = dir / ("proxy" + std::to_string(n));
                const conformance::Proxy proxy(at, server, damage, heard);
                INFO("kind " << kind << " to client " << to_client << " offset " << damage.offset);
                Store<Pool> direct(Pool::Options{.address = server});
                good += use(said(heard), direct, a, "s" + std::to_string(n));
                ++runs;
            }
    REQUIRE(good > 0);     // what is only late, or beyond the end, does no harm
    REQUIRE(good < runs);  // and the proxy does some
}
}  // namespace

TEST_CASE("bytes that are damaged on the way end in an error or in a repetition, never in bytes") {
    test::Scratch dir;
    check_damage("eyas+tcp://127.0.0.1:0", dir.path());
    check_damage("eyas+unix://" + (dir.path() / "socket-").string(), dir.path());
}

TEST_CASE("a lost answer: what was done is not done twice, and nothing stays held") {
    test::Served<Sockets, Memory> pool({}, "eyas+tcp://127.0.0.1:0");
    using LossyPool = RemotePool<Transport<conformance::Lossy<Posix>>>;
    const conformance::Lossy<Posix>::Options lossy;
    {
        Store<LossyPool> store({.address = pool.server->address(),
                                .client = {.reconnect_timeout = std::chrono::milliseconds(200)},
                                .transport = lossy},
                               {.retain_on_release = false});
        *lossy.lose = 1;
        const auto ref = store.put(prototype("a"), Sample(1).features());
        REQUIRE(*lossy.lose <= 0);
        REQUIRE(ref.generation() == 1);
        REQUIRE(pool.store.backend().objects().at(0).key.generation == 1);
        for (int i = 0; i < 3; ++i) {  // of acquire, of read, of the list
            *lossy.lose = 1;
            conformance::require_content(store, ref, Sample(1));
        }
        *lossy.lose = 2;
        REQUIRE(store.health().resident_objects == 1);
        auto lease = store.acquire(ref);
        *lossy.lose = 1;
        store.release(std::move(lease));  // the removal's
        store.drain();
        REQUIRE(pool.store.health().resident_objects == 0);
        *lossy.lose = 1'000'000;  // whatever is tried
        REQUIRE_THROWS_AS(store.put(prototype("b"), Sample(2).features()), TransportError);
        REQUIRE(pool.store.health().resident_objects == 1);
        *lossy.lose = 0;
    }
    REQUIRE(eventually([&] { return pool.service.leases() == 0; }));
}

TEST_CASE("pools that fail are stores that fail") {
    std::vector<std::unique_ptr<test::Served<Sockets, Memory>>> all;
    conformance::check_store_faults<Pool>([&] {
        all.push_back(std::make_unique<test::Served<Sockets, Memory>>(Memory::Options{},
                                                                      "eyas+tcp://127.0.0.1:0"));
        return all.back()->client();
    });
}

TEST_CASE("several processes share a pool, over tcp and unix, in memory and on disk") {
    test::Scratch dir;
    std::vector<std::unique_ptr<Process>> pools;
    for (const std::string& listen :
         {std::string("eyas+tcp://127.0.0.1:0"), "eyas+unix://" + (dir.path() / "s-").string()}) {
        const auto check = [&]<class B>(const std::function<typename B::Options()>& place) {
            conformance::check_processes<Pool>([&] {
                const auto n = std::to_string(pools.size());
                const auto file = dir.path() / ("said-" + n);
                pools.push_back(
                    serve<B>(place(), listen.ends_with('-') ? listen + n : listen, file));
                return Pool::Options{.address = said(file)};
            });
        };
        check.operator()<Memory>([] { return Memory::Options{}; });
        check.operator()<SharedDirectory>([&] {
            return SharedDirectory::Options{.root = dir.fresh(), .files = {.durable = false}};
        });
    }
}

TEST_CASE("a pool's memory that was started again refuses the refs of before") {
    test::Scratch dir;
    const auto file = dir.path() / "said";
    auto pool = serve<Memory>({}, "eyas+tcp://127.0.0.1:0", file);
    const auto at = said(file);
    Store<Pool> store(Pool::Options{.address = at});
    const auto ref = store.put(prototype("a"), Sample(1).features());
    pool->kill();
    std::filesystem::remove(file);
    pool = serve<Memory>({}, at.text(), file);
    demand(said(file) == at, "the same address");
    const auto again = store.put(prototype("a"), Sample(2).features());
    REQUIRE(again.generation() == ref.generation());  // and yet another object
    REQUIRE_THROWS_AS(store.acquire(ref), StaleReferenceError);
    conformance::require_content(store, again, Sample(2));
    REQUIRE(store.backend().client().restarts() == 1);
}
