// A pool's client whose pool answers anything. What it says is refused or read, never believed.
#include <limits>

#include "eyas/store/remote_pool.hpp"
#include "eyas/store/store.hpp"
#include "scripted_link.hpp"

namespace {
using namespace eyas;

/// Connects to the feed: a good handshake, then answers with the right numbers and any status and
/// body.
struct Scripted {
    struct Options {
        fuzz::Feed* feed = nullptr;
    };
    struct Link {
        explicit Link(fuzz::Feed* feed) : said(feed) {}
        void send(const OutMessage& m, const Limit& limit) { said.send(m, limit); }
        InMessage receive(const Limit& limit) {
            InMessage m;
            detail::WireWriter w;
            if (greeted == 0) {
                w.put(detail::Handshake::version).raw(detail::Id128{}).raw(detail::Id128{});
                w.put(std::uint8_t{0});
            } else if (greeted == 1) {
                w.put(std::uint8_t{1}).raw(detail::Mac{});
            } else {  // the pool's first answer is to a closing of nothing
                const std::byte good[] = {std::byte{0}};
                if (greeted > 2) m = said.receive(limit);
                const auto body = greeted > 2 ? std::span<const std::byte>(m.head) : good;
                const auto number = static_cast<std::uint64_t>(greeted - 2);
                w.put(number).raw(detail::seal_of({}, detail::Says::Reply, number, body)).raw(body);
            }
            ++greeted;
            m.head.assign(w.bytes().begin(), w.bytes().end());
            return m;
        }
        void receive_parts(std::span<const std::span<std::byte>> into, const Limit& limit) {
            said.receive_parts(into, limit);
        }
        void close() {}
        std::string peer() const { return "fuzz"; }
        bool passes_descriptors() const { return false; }
        fuzz::ScriptedLink said;
        int greeted = 0;
    };
    struct Listener {
        std::unique_ptr<Link> accept(const Limit&) { return nullptr; }
        Address address() const { return {}; }
        void close() {}
    };
    struct Region {};
    explicit Scripted(Options o) : options(o) {}
    static bool serves(std::string_view) { return true; }
    std::unique_ptr<Link> connect(const Address&, const Limit&) {
        if (connected) throw TransportError("the peer is gone", "fuzz", "");
        connected = true;
        return std::make_unique<Link>(options.feed);
    }
    std::unique_ptr<Listener> listen(const Address&) { return nullptr; }
    Region register_region(std::span<std::byte>) { return {}; }
    Options options;
    bool connected = false;
};
using Pool = RemotePool<Transport<Scripted>>;

void read(Store<Pool>& store) {
    const auto lease =
        store.acquire({.sample_id = "a", .run_id = {}, .metadata = {{"generation", 1}}});
    std::uint64_t bytes = 0;
    for (const auto& t : store.stored(lease).tensors) bytes += t.tensor.size_bytes();
    if (bytes > 1 << 20) return;  // a loader has bounds of its own: the ref's specs
    for (const auto& t : store.view(lease)) fuzz::touch(t.tensor.bytes());
}
}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Feed feed(fuzz::bytes_of(data, size));
    const auto choice = feed.byte() % 4;
    fuzz::refuse_or_read([&] {
        Store<Pool> store(
            Pool::Options{.address = {},
                          .client = {.reconnect_timeout = std::chrono::milliseconds(0), .links = 1},
                          .transport = {&feed}});
        if (choice == 0) read(store);
        if (choice == 1) (void)store.health();
        if (choice == 2) (void)store.backend().uri({"a", 1, ""});
        if (choice == 3) {
            const Tensor x = Tensor::zeros(DType::U8, {4});
            const NamedTensor features[] = {{"x", x}};
            (void)store.put({.sample_id = "a", .run_id = {}}, features);
        }
    });
    return 0;
}
