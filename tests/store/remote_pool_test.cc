#include "eyas/store/remote_pool.hpp"

#include <signal.h>
#include <sys/wait.h>

#include <future>

#include "conformance.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/pool_service.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/transport/posix.hpp"
#include "scratch.hpp"

using namespace eyas;
using conformance::prototype;
using conformance::Sample;
using Sockets = Transport<Posix>;
using Pool = RemotePool<Sockets>;

namespace {
/// A pool in this process.
template <class B>
struct Served {
    Store<B> store;
    PoolService<Store<B>> service{store};
    Sockets sockets;
    std::unique_ptr<Sockets::Server<PoolService<Store<B>>>> server;

    Served(typename B::Options options, const std::string& address, StorePolicy policy = {})
        : store(std::move(options), policy),
          server(
              sockets.serve(parse_address(address), service, {.auth_token = policy.auth_token})) {}
    Pool::Options client(const std::string& token = {}) const {
        return {.address = server->address(),
                .client = {.auth_token = token,
                           .timeout = std::chrono::seconds(20),
                           .reconnect_timeout = std::chrono::milliseconds(300)}};
    }
};

/// Until it holds; fails after many seconds.
template <class F>
void eventually(const F& holds) {
    for (int i = 0; i < 2000 && !holds(); ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    REQUIRE(holds());
}

/// A pool in a child process, as in two machines: it says its address through a file.
struct ServedElsewhere {
    pid_t pid;
    Address address;

    template <class F>
    ServedElsewhere(const std::filesystem::path& said, const F& serve) : pid(::fork()) {
        if (pid == 0) {
            try {
                serve([&](const Address& a) { write_text_file(said, a.text()); });
                for (;;) ::pause();
            } catch (...) {
            }
            ::_exit(1);
        }
        eventually([&] { return std::filesystem::exists(said); });
        address = parse_address(read_text_file(said));
    }
    void kill() {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
    }
};

template <class B>
void check_pools(const std::function<typename B::Options()>& place, const std::string& listen) {
    std::vector<std::unique_ptr<Served<B>>> all;
    conformance::check_store<Pool>([&] {
        all.push_back(std::make_unique<Served<B>>(
            place(), listen.ends_with('-') ? listen + std::to_string(all.size()) : listen));
        return all.back()->client();
    });
    for (auto& s : all) {
        eventually([&] { return s->service.leases() == 0 && s->server->sessions() == 0; });
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
    std::vector<std::unique_ptr<ServedElsewhere>> all;
    for (const auto& listen : {std::string("eyas+tcp://127.0.0.1:0"),
                               "eyas+unix://" + (dir.path() / "elsewhere-").string()})
        conformance::check_store<Pool>([&] {
            const auto n = std::to_string(all.size());
            all.push_back(std::make_unique<ServedElsewhere>(
                dir.path() / ("address-" + n), [&](const auto& say) {
                    static Served<Memory> pool({}, listen.ends_with('-') ? listen + n : listen);
                    say(pool.server->address());
                }));
            return Pool::Options{.address = all.back()->address};
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
    eventually([&] { return pool.service.leases() == 0 && pool.server->links() == 0; });
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    REQUIRE(pool.store.collect(std::chrono::seconds(0)) == 1);
}

TEST_CASE("a pool that is killed: its owner is lost, mapped views live on, a new one is refused") {
    test::Scratch dir;
    const auto listen = "eyas+unix://" + (dir.path() / "socket").string();
    const auto serve = [&](const auto& say) {
        static Served<Memory> pool({}, listen);
        say(pool.server->address());
    };
    ServedElsewhere first(dir.path() / "one", serve);
    Store<Pool> store(Pool::Options{
        .address = first.address, .client = {.reconnect_timeout = std::chrono::milliseconds(200)}});
    const auto ref = store.put(prototype("a"), Sample(1).features());
    const auto lease = store.acquire(ref);
    first.kill();
    REQUIRE_THROWS_AS(store.acquire(ref), OwnerLostError);
    REQUIRE(conformance::same_bytes(store.view(lease)[0].tensor, Sample(1).ids));
    ServedElsewhere second(dir.path() / "two", serve);
    REQUIRE_THROWS_AS(store.acquire(ref), StaleReferenceError);  // it lay in the other's memory
    store.put(prototype("b"), Sample(2).features());
    REQUIRE(store.backend().client().restarts() == 1);
    second.kill();
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
