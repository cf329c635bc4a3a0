#include "eyas/transport/transport.hpp"

#include <catch2/catch.hpp>
#include <future>
#include <random>

#include "echo.hpp"

using namespace eyas;
using namespace eyas::test;
using std::chrono::milliseconds;

namespace {
/// Whether exactly one answer came, with the bytes that were sent. No assertion inside: Catch2's
/// are for one thread.
bool echoes(Sockets::Client& client, const std::vector<std::byte>& head,
            const std::vector<std::vector<std::byte>>& parts) {
    const std::vector<std::span<const std::byte>> out(parts.begin(), parts.end());
    int answers = 0;
    bool same = true;
    client.call(
        {.head = head, .parts = out, .answer = [&](InMessage& m, auto got, const auto& take) {
             ++answers;
             std::vector<std::vector<std::byte>> in;
             for (const auto n : m.parts) in.emplace_back(n);
             const std::vector<std::span<std::byte>> into(in.begin(), in.end());
             if (!into.empty()) take(into);
             same = same && std::ranges::equal(got, head) && in == parts;
         }});
    return answers == 1 && same;
}

void require_echo(Sockets::Client& client, const std::vector<std::byte>& head,
                  const std::vector<std::vector<std::byte>>& parts) {
    const bool good = echoes(client, head, parts);  // may throw, which is the caller's to look at
    REQUIRE(good);
}

void require_alive(Pair& p) { require_echo(*p.client, pattern(5, 1), {pattern(9, 2)}); }

/// A raw connection that says what it likes.
struct Stranger {
    detail::Fd fd;
    explicit Stranger(const Address& a) : fd(::socket(AF_INET, SOCK_STREAM, 0)) {
        const auto at = detail::resolve(a, false);
        REQUIRE(::connect(fd.get(), at[0].get(), at[0].size) == 0);
    }
    void say(std::span<const std::byte> b) const {
        (void)!::send(fd.get(), b.data(), b.size(), MSG_NOSIGNAL);
    }
    /// Until the server closes; what it said.
    std::size_t listen() const {
        std::size_t all = 0;
        char buffer[4096];
        for (ssize_t n; (n = ::recv(fd.get(), buffer, sizeof buffer, 0)) > 0;)
            all += static_cast<std::size_t>(n);
        return all;
    }
};
}  // namespace

TEST_CASE("heads and parts of every size arrive as they were sent") {
    for (const std::string at : {"eyas+tcp://127.0.0.1:0", "eyas+tcp://[::1]:0"}) {
        Pair p({}, {}, at);
        for (const std::size_t n : {0u, 1u, 7u, 4096u, 65'000u})
            require_echo(*p.client, pattern(n, 3), {});
        for (const std::size_t n :
             {std::size_t{0}, std::size_t{1}, std::size_t{65'536}, std::size_t{5'000'001}})
            require_echo(*p.client, pattern(4, 1), {pattern(n, 1), pattern(3, 2), pattern(n, 5)});
        require_echo(*p.client, {}, std::vector<std::vector<std::byte>>(256, pattern(10, 1)));
        REQUIRE(p.client->connections() == 1);
        REQUIRE_THROWS_AS(
            require_echo(*p.client, {}, std::vector<std::vector<std::byte>>(257, pattern(1, 1))),
            ContractError);
        REQUIRE_THROWS_AS(require_echo(*p.client, pattern(70'000, 1), {}), ContractError);
        require_alive(p);
    }
}

TEST_CASE("errors cross the wire with their type and words, and the link goes on") {
    Pair p;
    const auto say = [&](std::string_view s) { p.client->call({.head = bytes_of(s)}); };
    REQUIRE_THROWS_AS(say("stale"), StaleReferenceError);
    REQUIRE_THROWS_AS(say("contract"), ContractError);
    REQUIRE_THROWS_AS(say("data"), DataError);
    REQUIRE_THROWS_AS(say("resource"), ResourceError);
    REQUIRE_THROWS_AS(say("memory"), ResourceError);
    REQUIRE_THROWS_WITH(say("nothing"), Catch::Contains("did not answer"));
    REQUIRE_THROWS_WITH(say("data"), Catch::Contains("w: d. r"));
    REQUIRE_THROWS_AS(say("owner"), OwnerLostError);
    REQUIRE_THROWS_AS(say("token"), AuthenticationError);
    REQUIRE_THROWS_AS(say("transport"), TransportError);
    REQUIRE(p.client->connections() == 1);
    require_alive(p);
}

TEST_CASE("a slow service runs into the deadline, a cancelled call into its flag") {
    Pair p({.timeout = milliseconds(300), .reconnect_timeout = milliseconds(100)});
    REQUIRE_THROWS_WITH(p.client->call({.head = bytes_of("slow")}),
                        Catch::Contains("longer than its deadline"));
    Pair q;
    auto waiting =
        std::async(std::launch::async, [&] { q.client->call({.head = bytes_of("slow")}); });
    std::this_thread::sleep_for(milliseconds(100));
    q.client->cancel();
    REQUIRE_THROWS_WITH(waiting.get(), Catch::Contains("cancelled"));
    q.client->resume();
    require_alive(q);
}

TEST_CASE("a peer that says nothing runs into the deadline") {
    Posix posix({});
    const auto silent = posix.listen(parse_address("eyas+tcp://127.0.0.1:0"));
    Sockets sockets;
    const auto client = sockets.client(
        silent->address(), {.timeout = milliseconds(400), .reconnect_timeout = milliseconds(200)});
    REQUIRE_THROWS_AS(client->call({.head = bytes_of("x")}), TransportError);
    const auto nobody =
        sockets.client(parse_address("eyas+tcp://127.0.0.1:1"),
                       {.timeout = milliseconds(400), .reconnect_timeout = milliseconds(200)});
    REQUIRE_THROWS_WITH(nobody->call({.head = bytes_of("x")}), Catch::Contains("cannot connect"));
    REQUIRE(silent->accept(Limit::within(milliseconds(100))) != nullptr);
    silent->close();
    while (silent->accept(Limit::within(milliseconds(100))) != nullptr) {
    }
}

TEST_CASE("a server that was started again is a new peer; what may be repeated is") {
    auto p = std::make_unique<Pair>();
    require_alive(*p);
    const auto address = p->server->address();
    const auto boot = p->client->boot();
    auto client = std::move(p->client);
    p.reset();
    Pair next({}, {}, address.text());
    require_echo(*client, pattern(3, 1), {});
    REQUIRE(client->restarts() == 1);
    REQUIRE(client->boot() != boot);
    next.server->stop();
    REQUIRE_THROWS_AS(client->call({.head = bytes_of("x"), .repeatable = false}), TransportError);
}

TEST_CASE("more calls at once than links wait for one") {
    Pair p({.links = 2});
    std::vector<std::future<bool>> all;
    for (unsigned t = 0; t < 8; ++t)
        all.push_back(std::async(std::launch::async, [&, t] {
            bool good = true;
            for (unsigned i = 0; i < 50; ++i)
                good = good && echoes(*p.client, pattern(3, t), {pattern(1000 * t + i, i)});
            return good;
        }));
    for (auto& f : all) REQUIRE(f.get());
    REQUIRE(p.client->connections() <= 2);
}

TEST_CASE("several calls go out ahead of their answers; a bad one does not stop the others") {
    Pair p;
    std::vector<Call> calls;
    int good = 0;
    for (int i = 0; i < 100; ++i)
        calls.push_back({.head = bytes_of(i % 10 == 3 ? "data" : "fine"),
                         .answer = [&](InMessage&, auto, const auto&) { ++good; }});
    const auto status = p.client->call_each(calls);
    for (std::size_t i = 0; i < status.size(); ++i)
        REQUIRE((status[i] != nullptr) == (i % 10 == 3));
    REQUIRE(good == 90);
}

TEST_CASE("strangers' bytes are refused, at every length, and the server lives on") {
    for (const auto& token : {std::string(), std::string("secret")}) {
        Pair p({.auth_token = token},
               {.auth_token = token, .timeout = milliseconds(2000), .links = 2000});
        require_alive(p);
        // What a real client says first, as bytes.
        detail::WireWriter hello;
        hello.put(std::uint32_t{1}).raw(detail::random_id()).raw(detail::random_id());
        const auto first = detail::Frame::encode({hello.bytes()});
        for (std::size_t cut = 0; cut < first.size(); cut += 3) {
            Stranger s(p.server->address());
            s.say(std::span(first).first(cut));
            ::shutdown(s.fd.get(), SHUT_WR);
            REQUIRE(s.listen() == 0);
        }
        std::mt19937 random(1);
        for (int round = 0; round < 200; ++round) {
            auto bad = first;
            bad[random() % bad.size()] ^= static_cast<std::byte>(1 + random() % 255);
            Stranger s(p.server->address());
            s.say(bad);
            s.say(pattern(random() % 300, static_cast<unsigned>(round)));
            ::shutdown(s.fd.get(), SHUT_WR);
            s.listen();
        }
        require_alive(p);
        REQUIRE(p.echo.served == 2);  // none of them was let in
    }
}

TEST_CASE("frames that announce too much are refused before anything is allocated") {
    const auto frame = [](std::uint32_t head, std::uint16_t parts, std::uint16_t flags) {
        detail::WireWriter w;
        w.put(detail::Frame::magic).put(head).put(parts).put(flags).put(std::uint32_t{0});
        return std::vector<std::byte>(w.bytes().begin(), w.bytes().end());
    };
    REQUIRE(detail::Frame::decode(frame(10, 2, 0), "x").parts == 2);
    REQUIRE_THROWS_AS(detail::Frame::decode(frame(65'537, 0, 0), "x"), DataError);
    REQUIRE_THROWS_AS(detail::Frame::decode(frame(0, 257, 0), "x"), DataError);
    REQUIRE_THROWS_AS(detail::Frame::decode(frame(0, 0, 2), "x"), DataError);
    detail::WireWriter sizes;
    sizes.put(MessageBounds::body).put(std::uint64_t{1});
    REQUIRE_THROWS_AS(detail::Frame::decode_sizes(sizes.bytes(), "x"), DataError);
    detail::WireWriter wrap;
    wrap.put(~std::uint64_t{0}).put(std::uint64_t{2});
    REQUIRE_THROWS_AS(detail::Frame::decode_sizes(wrap.bytes(), "x"), DataError);
}

TEST_CASE("a request that is replayed or forged on a proven link is refused") {
    detail::Acquainted a{.keyed = true};
    a.key[0] = std::byte{5};
    const auto good = detail::Envelope::request(a, 7, bytes_of("body"));
    REQUIRE(detail::Envelope::open_request(good.bytes(), a, 7, "x").size() == 4);
    REQUIRE_THROWS_AS(detail::Envelope::open_request(good.bytes(), a, 8, "x"), DataError);
    std::vector<std::byte> bad(good.bytes().begin(), good.bytes().end());
    bad.back() ^= std::byte{1};
    REQUIRE_THROWS_AS(detail::Envelope::open_request(bad, a, 7, "x"), AuthenticationError);
    for (std::size_t cut = 0; cut < detail::Envelope::request_bytes; ++cut)
        REQUIRE_THROWS_AS(detail::Envelope::open_request(good.bytes().first(cut), a, 7, "x"),
                          Error);
    // What a client said is not taken for the server's words.
    REQUIRE_THROWS_AS(detail::Envelope::open_reply(good.bytes(), a, 7, "x"), AuthenticationError);
}

TEST_CASE("a head that is damaged on the way is refused on both sides, token or not") {
    for (const bool keyed : {false, true}) {
        const detail::Acquainted a{.keyed = keyed, .key = {std::byte{5}}};
        const auto request = detail::Envelope::request(a, 7, bytes_of("body"));
        const auto reply = detail::Envelope::reply(a, 7, bytes_of("answer"));
        REQUIRE(detail::Envelope::open_reply(reply.bytes(), a, 7, "x").body.size() == 6);
        for (const auto* message : {&request, &reply})
            for (std::size_t at = 0; at < message->bytes().size(); ++at) {
                std::vector<std::byte> bad(message->bytes().begin(), message->bytes().end());
                bad[at] ^= std::byte{16};
                if (message == &request)
                    REQUIRE_THROWS_AS(detail::Envelope::open_request(bad, a, 7, "x"), Error);
                else
                    REQUIRE_THROWS_AS(detail::Envelope::open_reply(bad, a, 7, "x"), Error);
            }
    }
}

TEST_CASE("addresses") {
    REQUIRE(parse_address("eyas+tcp://host:7411").port == 7411);
    REQUIRE(parse_address("eyas+tcp://[::1]:5").host == "::1");
    REQUIRE(parse_address("eyas+unix:///a/b").path == "/a/b");
    for (const char* text : {"eyas+tcp://host:7411", "eyas+tcp://[::1]:5", "eyas+unix:///a/b"})
        REQUIRE(parse_address(text).text() == text);
    for (const char* bad :
         {"", "tcp://a:1", "eyas+tcp://", "eyas+tcp://a", "eyas+tcp://:1", "eyas+tcp://a:x",
          "eyas+tcp://a:70000", "eyas+unix://a", "eyas+://a:1", "eyas+tcp://[]:1"})
        REQUIRE_THROWS_AS(parse_address(bad), ContractError);
}

TEST_CASE("a socket file is taken over from a dead process only") {
    const auto dir = std::filesystem::temp_directory_path() /
                     ("eyas-socket-" + detail::random_hex() + "-" + std::string(120, 'd'));
    std::filesystem::create_directories(dir);
    const auto at = "eyas+unix://" + (dir / "socket").string();
    {
        Pair p({}, {}, at);  // also: longer than a socket's address
        require_alive(p);
        REQUIRE_THROWS_AS(Pair({}, {}, at), ResourceError);
        require_alive(p);
    }
    REQUIRE_FALSE(std::filesystem::exists(dir / "socket"));
    std::filesystem::remove_all(dir);
}
