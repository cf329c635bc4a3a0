// Peers out of form, links that end in the middle, and servers that are short of something.
#include <catch2/catch.hpp>
#include <functional>

#include "echo.hpp"
#include "forked.hpp"
#include "scratch.hpp"

using namespace eyas;
using namespace eyas::test;
using conformance::eventually;

namespace {
std::string unix_in(const Scratch& dir) {
    return "eyas+unix://" + (dir.path() / "socket").string();
}

detail::Fd connected(const Address& a) {
    detail::Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto at = detail::unix_address(a);
    REQUIRE(::connect(fd.get(), at.get(), at.size) == 0);
    return fd;
}

/// Sends bytes with this process' standard input beside them, several times.
void send_with_files(const detail::Fd& to, std::span<const std::byte> bytes, std::size_t files) {
    const std::vector<int> all(files, STDIN_FILENO);
    alignas(cmsghdr) char control[256]{};
    iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
    msghdr m{};
    m.msg_iov = &piece;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = CMSG_SPACE(files * sizeof(int));
    auto* c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(files * sizeof(int));
    std::memcpy(CMSG_DATA(c), all.data(), files * sizeof(int));
    REQUIRE(::sendmsg(to.get(), &m, MSG_NOSIGNAL) > 0);
}
}  // namespace

TEST_CASE("files that come unasked, or several at once, are closed and the peer is refused") {
    Scratch dir;
    Pair p({}, {}, unix_in(dir));
    p.client->call({.head = bytes_of("x")});
    const std::array<std::byte, 4> beginning{};
    const auto open = conformance::own("fd");
    for (const std::size_t files : {2u, 3u, 20u}) {
        const auto refused = p.server->refused();
        const auto stranger = connected(p.server->address());
        send_with_files(stranger, beginning, files);
        ::shutdown(stranger.get(), SHUT_WR);
        REQUIRE(eventually([&] { return p.server->refused() == refused + 1; }));
    }
    {  // one, and later one more
        const auto stranger = connected(p.server->address());
        send_with_files(stranger, beginning, 1);
        send_with_files(stranger, beginning, 1);
        REQUIRE(eventually([&] { return p.server->refused() == 4; }));
    }
    REQUIRE(eventually([&] { return conformance::own("fd") == open; }));
    p.client->call({.head = bytes_of("x")});
}

TEST_CASE("calls whose requests and answers are both large do not wait for each other") {
    Scratch dir;
    Pair p({.timeout = std::chrono::seconds(10)}, {}, unix_in(dir));
    const auto large = pattern(std::size_t{4} << 20, 1);
    const std::span<const std::byte> parts[] = {large};
    std::vector<std::byte> got(large.size());
    const std::span<std::byte> into[] = {got};
    std::vector<Call> calls(3, Call{.head = bytes_of("large"),
                                    .parts = parts,
                                    .answer = [&](InMessage&, auto, const auto& take) {
                                        std::ranges::fill(got, std::byte{0});
                                        take(into);
                                    }});
    calls.insert(calls.begin() + 1, Call{.head = bytes_of("small")});
    for (const auto& error : p.client->call_each(calls)) REQUIRE_FALSE(error);
    REQUIRE(got == large);
    REQUIRE(p.echo.served == 4);  // each once
}

namespace {
/// Sockets of a machine that is short of memory when the first peers come.
class Hungry : public Posix {
public:
    struct Options {
        std::shared_ptr<std::atomic<int>> failures = std::make_shared<std::atomic<int>>(3);
    };
    class Listener {
    public:
        Listener(std::unique_ptr<Posix::Listener> inner, std::shared_ptr<std::atomic<int>> failures)
            : inner_(std::move(inner)), failures_(std::move(failures)) {}
        std::unique_ptr<Link> accept(const Limit& limit) {
            auto link = inner_->accept(limit);
            if (link && *failures_ > 0 && (*failures_)-- > 0) throw std::bad_alloc();
            return link;
        }
        Address address() const { return inner_->address(); }
        void close() { inner_->close(); }

    private:
        std::unique_ptr<Posix::Listener> inner_;
        std::shared_ptr<std::atomic<int>> failures_;
    };
    explicit Hungry(Options o) : Posix(Posix::Options{}), failures_(std::move(o.failures)) {}
    std::unique_ptr<Listener> listen(const Address& a) {
        return std::make_unique<Listener>(Posix::listen(a), failures_);
    }

private:
    std::shared_ptr<std::atomic<int>> failures_;
};

/// Stops the server that runs it.
struct Stopper {
    struct Session {};
    std::shared_ptr<Session> open_session() { return std::make_shared<Session>(); }
    void serve(Session&, Request& r) {
        stop();
        r.reply({});
    }
    std::function<void()> stop = {};
};
}  // namespace

TEST_CASE("a server that has no memory for a peer takes the next ones") {
    const Hungry::Options machine;
    Transport<Hungry> transport(machine);
    Echo echo;
    const auto server =
        transport.serve(parse_address("eyas+tcp://127.0.0.1:0"), echo, from_a_distance({}));
    const auto client = transport.client(server->address(), {});
    client->call({.head = bytes_of("x")});
    REQUIRE(*machine.failures == 0);
    REQUIRE(echo.served == 1);
}

TEST_CASE("a service that stops its own server is refused, and the server goes on") {
    Sockets sockets;
    Stopper service;
    const auto server =
        sockets.serve(parse_address("eyas+tcp://127.0.0.1:0"), service, from_a_distance({}));
    service.stop = [&] { server->stop(); };
    const auto client = sockets.client(server->address(), {});
    for (int i = 0; i < 2; ++i)
        REQUIRE_THROWS_AS(client->call({.head = bytes_of("x")}), ContractError);
    REQUIRE(client->connections() == 1);
}

TEST_CASE("a socket file that somebody has, busy or of another kind, stays") {
    for (const int kind : {SOCK_STREAM, SOCK_DGRAM}) {
        Scratch dir;
        const auto address = parse_address(unix_in(dir));
        const detail::Fd other(::socket(AF_UNIX, kind | SOCK_CLOEXEC, 0));
        const auto at = detail::unix_address(address);
        REQUIRE(::bind(other.get(), at.get(), at.size) == 0);
        detail::Fd waiting;
        if (kind == SOCK_STREAM) {
            REQUIRE(::listen(other.get(), 0) == 0);
            waiting = connected(address);  // as many as it has room for
        }
        Posix posix({});
        REQUIRE_THROWS_AS(posix.listen(address), ResourceError);
        REQUIRE(std::filesystem::exists(address.path));
    }
}

TEST_CASE("a listener that goes leaves another's socket file alone") {
    Scratch dir;
    const auto address = parse_address(unix_in(dir));
    Posix posix({});
    auto first = posix.listen(address);
    std::filesystem::rename(address.path, address.path + "-moved");
    const auto second = posix.listen(address);
    first.reset();
    REQUIRE(std::filesystem::exists(address.path));
    REQUIRE(posix.connect(address, Limit::within(std::chrono::seconds(5))) != nullptr);
}
