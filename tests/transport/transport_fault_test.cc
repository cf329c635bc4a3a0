// Peers out of form, links that end in the middle, and servers that are short of something.
#include <catch2/catch.hpp>
#include <future>

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
