
#include <signal.h>
#include <sys/wait.h>

#include <future>
#include <random>

#include "conformance.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/transport/posix.hpp"
#include "scratch.hpp"
#include "served_pool.hpp"

using namespace eyas;
using conformance::prototype;
using conformance::Sample;
using Sockets = Transport<Posix>;
using Pool = RemotePool<Sockets>;

namespace {
template <class B>
using Served = test::Served<Sockets, B>;

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
    eventually([&] { return pool.server->sessions() == 2; });
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

namespace {
/// A request as bytes, and its parts.
struct Spoken {
    std::vector<std::byte> head;
    std::vector<std::vector<std::byte>> parts = {};
};

Spoken put_of(const Sample& a, std::uint64_t token) {
    detail::WireWriter w;
    w.put(static_cast<std::uint8_t>(detail::Operation::Put));
    detail::PutRecord p{.token = token, .sample = "a"};
    Spoken s;
    for (const auto& t : a.features()) {
        p.tensors.push_back({t.name, t.tensor.dtype, t.tensor.shape, xxh3(t.tensor.bytes())});
        s.parts.emplace_back(t.tensor.bytes().begin(), t.tensor.bytes().end());
    }
    p.write(w);
    s.head.assign(w.bytes().begin(), w.bytes().end());
    return s;
}

/// The answer's head; throws what the pool answered.
std::vector<std::byte> say(Sockets::Client& client, const Spoken& s) {
    const std::vector<std::span<const std::byte>> parts(s.parts.begin(), s.parts.end());
    std::vector<std::byte> answer;
    client.call(
        {.head = s.head, .parts = parts, .answer = [&](InMessage& m, auto head, const auto& take) {
             answer.assign(head.begin(), head.end());
             std::vector<std::vector<std::byte>> in;
             for (const auto n : m.parts) in.emplace_back(n);
             const std::vector<std::span<std::byte>> into(in.begin(), in.end());
             if (!into.empty()) take(into);
         }});
    return answer;
}
}  // namespace

TEST_CASE("a put that comes again with its token is not done twice") {
    Served<Memory> pool({}, "eyas+tcp://127.0.0.1:0");
    Sockets sockets;
    const auto client = sockets.client(pool.server->address(), {});
    const auto first = say(*client, put_of(Sample(1), 77));
    REQUIRE(say(*client, put_of(Sample(1), 77)) == first);  // as if that answer had been lost
    REQUIRE(pool.store.backend().objects().at(0).key.generation == 1);
    REQUIRE(say(*client, put_of(Sample(1), 78)) != first);
    REQUIRE(pool.store.backend().objects().at(0).key.generation == 2);
}

TEST_CASE("a put whose tensors together pass the quota is refused before its bytes are taken") {
    Served<Memory> pool({}, "eyas+tcp://127.0.0.1:0", {.quota_bytes = 100'000});
    Sockets sockets;
    const auto client = sockets.client(pool.server->address(), {});
    const auto put = put_of(Sample(1, 7000), 1);  // each of the two is less
    REQUIRE(put.parts[0].size() < 100'000);
    REQUIRE_THROWS_WITH(say(*client, put), Catch::Contains("112000 bytes pass the quota"));
    REQUIRE(pool.store.health().resident_objects == 0);
}

TEST_CASE("bytes that are not those announced are not stored") {
    Served<Memory> pool({}, "eyas+tcp://127.0.0.1:0");
    Sockets sockets;
    const auto client = sockets.client(pool.server->address(), {});
    auto bad = put_of(Sample(1), 1);
    bad.parts[0][3] ^= std::byte{4};
    REQUIRE_THROWS_AS(say(*client, bad), DataError);
    REQUIRE(pool.store.health().resident_objects == 0);
}

TEST_CASE("requests cut at every byte and flipped at random are refused; the pool lives on") {
    Served<Memory> pool({}, "eyas+tcp://127.0.0.1:0");
    Store<Pool> store(pool.client());
    store.put(prototype("b"), Sample(5).features());
    Sockets sockets;
    const auto client = sockets.client(pool.server->address(), {});
    const auto spoken = [](detail::Operation o, const auto& more) {
        detail::WireWriter w;
        w.put(static_cast<std::uint8_t>(o));
        more(w);
        return Spoken{{w.bytes().begin(), w.bytes().end()}};
    };
    const auto key = [](detail::WireWriter& w) { detail::write_key(w, {"b", 1, ""}); };
    const auto opened = say(*client, spoken(detail::Operation::Open, key));
    std::uint64_t lease = 0;
    std::memcpy(&lease, opened.data(), sizeof lease);
    const std::vector<Spoken> good{
        put_of(Sample(1), 9),
        spoken(detail::Operation::Open, key),
        spoken(detail::Operation::Read,
               [&](auto& w) {
                   w.put(lease).put(std::uint32_t{2}).put(std::uint32_t{0}).put(std::uint32_t{1});
               }),
        spoken(detail::Operation::Close,
               [](auto& w) { w.put(std::uint32_t{1}).put(std::uint64_t{3}); }),
        spoken(detail::Operation::Objects, [](auto&) {}),
        spoken(detail::Operation::Uri, key)};
    for (const auto& s : good) {
        REQUIRE_NOTHROW(say(*client, s));
        for (std::size_t cut = 0; cut < s.head.size(); ++cut) {
            auto bad = s;
            bad.head.resize(cut);
            REQUIRE_THROWS_AS(say(*client, bad), DataError);
        }
        auto longer = s;
        longer.head.push_back(std::byte{0});
        REQUIRE_THROWS_AS(say(*client, longer), DataError);
    }
    std::mt19937 random(3);
    for (int round = 0; round < 2000; ++round) {
        auto bad = good[random() % good.size()];
        bad.head[random() % bad.head.size()] ^= static_cast<std::byte>(1u << random() % 8);
        try {
            say(*client, bad);  // may by chance be another good one, also one that erases
        } catch (const Error&) {
        }
    }
    const auto after = store.put(prototype("z"), Sample(6).features());
    conformance::require_content(store, after, Sample(6));
}

TEST_CASE("answers cut at every byte are refused by the client") {
    detail::WireWriter w;
    detail::OpenedRecord{
        .lease = 3, .tensors = {{"a", DType::BF16, Shape{2, 3}, 1, 64}}, .file_bytes = 76}
        .write(w);
    const auto read = [](std::span<const std::byte> bytes) {
        detail::WireReader r(bytes, "pool");
        return detail::OpenedRecord::read(r);
    };
    REQUIRE(read(w.bytes()).tensors.at(0).shape == Shape{2, 3});
    for (std::size_t cut = 0; cut < w.bytes().size(); ++cut)
        REQUIRE_THROWS_AS(read(w.bytes().first(cut)), DataError);
    detail::WireWriter outside;  // a tensor beyond its file
    detail::OpenedRecord{
        .lease = 3, .tensors = {{"a", DType::BF16, Shape{2, 3}, 1, 65}}, .file_bytes = 76}
        .write(outside);
    REQUIRE_THROWS_AS(read(outside.bytes()), DataError);
    detail::WireWriter list;
    detail::write_objects(list, {{{"a", 1, ""}, 5, 0.5}, {{"b", 2, ""}, 6, 1.5}});
    REQUIRE(detail::read_objects(list.bytes(), 2, "pool").size() == 2);
    REQUIRE_THROWS_AS(detail::read_objects(list.bytes(), 3, "pool"), DataError);
    REQUIRE_THROWS_AS(detail::read_objects(list.bytes(), 1, "pool"), DataError);
}
