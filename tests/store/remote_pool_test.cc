// Pools as stores: whatever is behind them, however they are reached.
#include <future>

#include "conformance.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/packed_shards.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/transport/posix.hpp"
#include "packed_samples.hpp"
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

template <class B>
void check_pools(const std::function<typename B::Options()>& place, const std::string& listen) {
    std::vector<std::unique_ptr<Served<B>>> all;
    conformance::check_store<Pool>([&] {
        all.push_back(std::make_unique<Served<B>>(
            place(), listen.ends_with('-') ? listen + std::to_string(all.size()) : listen));
        return all.back()->client();
    });
    for (auto& s : all) {
        REQUIRE(eventually([&] { return s->service.leases() == 0 && s->server->sessions() == 0; }));
        REQUIRE(s->server->refused() == 0);
    }
}
}  // namespace

TEST_CASE("a pool is a store, whatever is behind it and whatever it is reached through") {
    test::Scratch dir;
    for (const auto& listen : {std::string("eyas+tcp://127.0.0.1:0"),
                               "eyas+unix://" + (dir.path() / "socket-").string()}) {
        check_pools<Memory>([] { return Memory::Options{}; }, listen);
        for (auto payload : {PayloadFormat::Safetensors, PayloadFormat::Ckpt})
            check_pools<SharedDirectory>(
                [&] {
                    return SharedDirectory::Options{
                        .root = dir.fresh(), .files = {.payload = payload, .durable = false}};
                },
                listen);
    }
}

TEST_CASE("a pool in another process is a store") {
    test::Scratch dir;
    std::vector<std::unique_ptr<conformance::Process>> all;
    for (const auto& listen : {std::string("eyas+tcp://127.0.0.1:0"),
                               "eyas+unix://" + (dir.path() / "elsewhere-").string()})
        conformance::check_store<Pool>([&] {
            const auto n = std::to_string(all.size());
            const auto file = dir.path() / ("address-" + n);
            all.push_back(
                test::serve<Memory>({}, listen.ends_with('-') ? listen + n : listen, file));
            return Pool::Options{.address = test::said(file)};
        });
    for (auto& s : all) s->kill();
}

TEST_CASE("on one machine an object is mapped, from a distance it is copied once") {
    test::Scratch dir;
    const Sample a(1, 1000);
    Served<Memory> near({}, "eyas+unix://" + (dir.path() / "near").string());
    Store<Pool> mapped(near.client());
    conformance::require_content(mapped, mapped.put(prototype("a"), a.features()), a);
    REQUIRE(near.service.bytes_sent() == 0);

    Served<Memory> far({}, "eyas+tcp://127.0.0.1:0");
    Store<Pool> sent(far.client());
    const auto ref = sent.put(prototype("a"), a.features());
    sent.release(sent.acquire(ref));
    REQUIRE(far.service.bytes_sent() == 0);  // a lease alone costs no bytes
    Tensor ids(DType::I64, a.ids.shape());
    const NamedBuffer b[] = {{"input_ids", ids.mutable_view()}};
    sent.read_into(sent.acquire(ref), b);
    REQUIRE(far.service.bytes_sent() == a.ids.view().size_bytes());
}

TEST_CASE("states that lie in float8 are decoded by the pool") {
    test::Scratch dir;
    test::PackSource samples(3, 32);
    const auto packed = pack(samples.store, samples.manifest, dir.path(),
                             {.states = PackedStates::Fp8E4M3, .durable = false});
    const PackedShards::Options place{.root = dir.path()};
    Store<PackedShards> here(place);
    for (const auto& listen : {std::string("eyas+tcp://127.0.0.1:0"),
                               "eyas+unix://" + (dir.path() / "socket").string()}) {
        Served<PackedShards> pool(place, listen);
        Store<Pool> store(pool.client());
        for (const auto& ref : packed.manifest.refs) {
            const auto lease = here.acquire(ref);
            const auto far = store.acquire(ref);
            const auto want = here.view(lease), got = store.view(far);
            for (std::size_t i = 0; i < want.size(); ++i)
                REQUIRE(conformance::same_bytes(got[i].tensor, want[i].tensor));
        }
    }
}

TEST_CASE("whatever the address, a client on the pool's machine maps, unless it is told not to") {
    const Sample a(1, 1000);
    Served<Memory> pool({}, "eyas+tcp://127.0.0.1:0", {.auth_token = "token"}, true);
    const StorePolicy policy{.auth_token = "token"};
    Store<Pool> mapped(pool.client("token"), policy);
    const auto ref = mapped.put(prototype("a"), a.features());
    conformance::require_content(mapped, ref, a);
    REQUIRE(pool.service.bytes_sent() == 0);
    auto from_afar = pool.client("token");
    from_afar.client.same_host = false;
    Store<Pool> sent(from_afar, policy);
    conformance::require_content(sent, ref, a);
    REQUIRE(pool.service.bytes_sent() > 0);

    // Both ways belong to one session: the client's leases go with its last link.
    {
        Store<Pool> other(pool.client("token"), policy);
        const auto lease = other.acquire(ref);
        REQUIRE(pool.server->sessions() == 3);
    }
    REQUIRE(eventually([&] { return pool.server->sessions() == 2; }));
    REQUIRE_THROWS_AS(Store<Pool>(pool.client("wrong"), {.auth_token = "wrong"}),
                      AuthenticationError);
}

TEST_CASE("a mapped object stays as it is when the pool frees it and stores others") {
    test::Scratch dir;
    Served<Memory> pool({}, "eyas+unix://" + (dir.path() / "socket").string());
    Store<Pool> store(pool.client());
    const Sample first(1, 5000);
    const auto ref = store.put(prototype("a"), first.features());
    const auto lease = store.acquire(ref);
    for (int i = 2; i < 60; ++i) store.put(prototype("a"), Sample(i, 5000).features());
    pool.server->stop();
    REQUIRE(conformance::same_bytes(store.view(lease)[0].tensor, first.ids));
    REQUIRE(conformance::same_bytes(store.view(lease)[1].tensor, first.hidden));
}

TEST_CASE("several threads read one pool at once, each batch its own") {
    Served<Memory> pool({}, "eyas+tcp://127.0.0.1:0");
    Store<Pool> store(pool.client());
    std::vector<SampleRef> refs;
    for (int i = 0; i < 8; ++i)
        refs.push_back(store.put(prototype("s" + std::to_string(i)), Sample(i, 3000).features()));
    std::vector<std::future<bool>> all;
    for (int t = 0; t < 6; ++t)
        all.push_back(std::async(std::launch::async, [&] {
            for (int round = 0; round < 20; ++round) {
                std::vector<Store<Pool>::Lease> leases;
                std::vector<Tensor> memory;
                std::vector<NamedBuffer> buffers;
                for (const auto& r : refs) {
                    leases.push_back(store.acquire(r));
                    memory.emplace_back(DType::I64, Shape{3000});
                    buffers.push_back({"input_ids", memory.back().mutable_view()});
                }
                std::vector<Store<Pool>::ReadRequest> requests;
                for (std::size_t i = 0; i < refs.size(); ++i)
                    requests.push_back({&leases[i], {&buffers[i], 1}});
                for (const auto& error : store.read_each(requests))
                    if (error) return false;
                for (std::size_t i = 0; i < refs.size(); ++i)
                    if (!conformance::same_bytes(memory[i], Sample(static_cast<int>(i), 3000).ids))
                        return false;
            }
            return true;
        }));
    for (auto& f : all) REQUIRE(f.get());
    REQUIRE(store.backend().client().connections() <= 4);
}

TEST_CASE("cancelled reads end, and go on after resume") {
    Served<Memory> pool({}, "eyas+tcp://127.0.0.1:0");
    Store<Pool> store(pool.client());
    const auto ref = store.put(prototype("a"), Sample(1).features());
    store.backend().cancel();
    REQUIRE_THROWS_AS(store.acquire(ref), TransportError);
    store.backend().resume();
    conformance::require_content(store, ref, Sample(1));
}
