// Pools that refuse, fail in the middle of an answer, or are asked twice at once.
#include <sys/mman.h>

#include <future>

#include "conformance.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/transport/posix.hpp"
#include "faulty_backend.hpp"
#include "forked.hpp"
#include "scratch.hpp"
#include "served_pool.hpp"

using namespace eyas;
using conformance::eventually;
using conformance::prototype;
using conformance::Sample;
using Sockets = Transport<Posix>;
using Pool = RemotePool<Sockets>;

TEST_CASE("a put of many bytes that the quota refuses is told so, not that the link broke") {
    test::Scratch dir;
    const Tensor large = Tensor::zeros(DType::U8, {std::int64_t{64} << 20});
    const NamedTensor tensors[] = {{"input_ids", large}};
    for (const auto& listen : {std::string("eyas+tcp://127.0.0.1:0"),
                               "eyas+unix://" + (dir.path() / "socket").string()}) {
        test::Served<Sockets, Memory> pool({}, listen, {.quota_bytes = 1'000'000});
        Store<Pool> store(Pool::Options{.address = pool.server->address()});
        const auto links = store.backend().client().connections();
        for (int i = 0; i < 5; ++i)
            REQUIRE_THROWS_AS(store.put(prototype("a"), tensors), ResourceError);
        REQUIRE(store.backend().client().connections() <= links + 5);  // none was sent again
        store.put(prototype("b"), Sample(1).features());
    }
}

namespace {
using Slow = conformance::FaultyBackend<Memory>;

/// Puts sample "a" under a token; the generation that the pool answers.
std::int64_t put(Sockets::Client& client, const Sample& a, std::uint64_t token) {
    detail::WireWriter w;
    w.put(static_cast<std::uint8_t>(detail::Operation::Put));
    detail::PutRecord p{.token = token, .sample = "a"};
    std::vector<std::span<const std::byte>> parts;
    const auto features = a.features();
    for (const auto& t : features) {
        p.tensors.push_back({t.name, t.tensor.dtype, t.tensor.shape, xxh3(t.tensor.bytes())});
        parts.push_back(t.tensor.bytes());
    }
    p.write(w);
    std::int64_t generation = 0;
    client.call({.head = w.bytes(), .parts = parts, .answer = [&](auto&, auto head, const auto&) {
                     detail::WireReader r(head, "pool");
                     generation = r.get<std::int64_t>();
                 }});
    return generation;
}
}  // namespace

TEST_CASE("a put that comes again while the first is under way is done once") {
    const Slow::Options place;
    test::Served<Sockets, Slow> pool(place, "eyas+tcp://127.0.0.1:0");
    Sockets sockets;
    const auto client = sockets.client(pool.server->address(), {});
    const Sample a(1);
    const auto both = [&](std::uint64_t token, auto& first, auto& second) {
        first = std::async(std::launch::async, [&, token] { return put(*client, a, token); });
        second = std::async(std::launch::async, [&, token] { return put(*client, a, token); });
    };
    std::future<std::int64_t> first, second;
    place.faults->slow_publishes = 2;
    both(7, first, second);
    REQUIRE(first.get() == 1);
    REQUIRE(second.get() == 1);
    REQUIRE(pool.store.backend().objects().at(0).key.generation == 1);

    // What failed is done again when it is asked for again.
    place.faults->slow_publishes = 2;
    place.faults->publishes = 2;
    both(8, first, second);
    REQUIRE_THROWS_AS(first.get(), ResourceError);
    REQUIRE_THROWS_AS(second.get(), ResourceError);
    place.faults->publishes = 0;
    REQUIRE(put(*client, a, 8) == 2);
}

TEST_CASE("leases that ended while the pool could not be told end with the next call") {
    test::Served<Sockets, Memory> pool({}, "eyas+tcp://127.0.0.1:0");
    Store<Pool> store(pool.client());
    const auto ref = store.put(prototype("a"), Sample(1).features());
    for (int i = 0; i < 3; ++i) store.release(store.acquire(ref));
    const auto lease = store.acquire(ref);
    for (int i = 0; i < 3; ++i) {
        store.release(store.acquire(ref));
        store.backend().cancel();
        REQUIRE_THROWS_AS(store.acquire(ref), TransportError);
        store.backend().resume();
    }
    store.release(store.acquire(ref));
    REQUIRE(pool.service.leases() == 2);  // the one that is held, and the last
}

namespace {
/// A client's request whose answer cannot be sent.
struct Unanswered final : Request {
    std::vector<std::byte> text;
    std::vector<std::uint64_t> none = {};
    std::string name = "unanswered";

    explicit Unanswered(const ObjectKey& key) {
        detail::WireWriter w;
        w.put(static_cast<std::uint8_t>(detail::Operation::Open));
        detail::write_key(w, key);
        text.assign(w.bytes().begin(), w.bytes().end());
    }
    std::span<const std::byte> head() const override { return text; }
    const std::vector<std::uint64_t>& parts() const override { return none; }
    void take(std::span<const std::span<std::byte>>) override {}
    void reply(std::span<const std::byte>, std::span<const std::span<const std::byte>>,
               int) override {
        throw TransportError("the peer went away", name, "");
    }
    bool passes_descriptors() const override { return true; }
    const std::string& peer() const override { return name; }
    Limit limit() const override { return {}; }
};
}  // namespace

TEST_CASE("a lease whose number could not be told is not kept") {
    Store<Memory> store({});
    PoolService<Store<Memory>> service(store);
    store.put(prototype("a"), Sample(1).features());
    const auto session = service.open_session();
    Unanswered request({"a", 1, {}});
    REQUIRE_THROWS_AS(service.serve(*session, request), TransportError);
    REQUIRE(service.leases() == 0);
}

namespace {
/// One object in a file whose server is gone: it can be read, and a touch of its mapping ends this
/// process. Its checksum is not known.
class OutOfReach : public Memory {
public:
    struct Options {
        std::filesystem::path file;
        Shape shape;
    };
    explicit OutOfReach(Options o)
        : Memory({}), shape_(o.shape), fd_(::open(o.file.c_str(), O_RDONLY | O_CLOEXEC)) {
        size_ = static_cast<std::size_t>(shape_.elements());
        void* p = ::mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE, fd_.get(), 0);
        if (p == MAP_FAILED) detail::throw_errno("cannot map", o.file);
        mapping_ = static_cast<const std::byte*>(p);
    }
    ~OutOfReach() { ::munmap(const_cast<std::byte*>(mapping_), size_); }

    StoredObject open(const ObjectKey&, bool) const {
        StoredObject o;
        o.tensors = {{"input_ids", {mapping_, DType::U8, shape_}}};
        o.file = {fd_.get(), {mapping_, size_}, true};
        return o;
    }

private:
    Shape shape_;
    detail::Fd fd_;
    std::size_t size_ = 0;
    const std::byte* mapping_ = nullptr;
};
}  // namespace

TEST_CASE("what lies on a network file system is read and sent, never mapped by anybody") {
    test::Scratch dir;
    const Sample a(1, 1000);
    const auto bytes = a.ids.view().bytes();
    const auto file = dir.path() / "object";
    write_text_file(file, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    const Shape shape{static_cast<std::int64_t>(bytes.size())};
    test::Served<Sockets, OutOfReach> pool({file, shape},
                                           "eyas+unix://" + (dir.path() / "socket").string());
    Store<Pool> store(pool.client());
    SampleRef ref = prototype("a");
    ref.metadata["generation"] = 1;
    const auto lease = store.acquire(ref);
    Tensor got(DType::U8, shape);
    const NamedBuffer buffers[] = {{"input_ids", got.mutable_view()}};
    store.read_into(lease, buffers);
    REQUIRE(std::ranges::equal(got.view().bytes(), bytes));
    REQUIRE(pool.service.bytes_sent() == bytes.size());
}
