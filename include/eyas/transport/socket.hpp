#pragma once
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "eyas/transport/concept.hpp"

namespace eyas::detail {

[[noreturn]] inline void throw_socket(const std::string& what, const std::string& peer,
                                      int error = errno) {
    throw TransportError(what + ": " + std::strerror(error), peer,
                         "Check that the peer runs and that the address is right");
}

/// Waits in slices until the descriptor is ready for `events`, within the limit.
inline void wait_ready(int fd, short events, const Limit& limit, const std::string& doing,
                       const std::string& peer) {
    for (;;) {
        pollfd p{fd, events, 0};
        const int n = ::poll(&p, 1, limit.wait_ms());
        if (n > 0) return;  // errors and hang-ups show in the call that follows
        if (n < 0 && errno != EINTR) throw_socket("cannot wait", peer);
        limit.check(doing, peer);
    }
}

/// An address that bind and connect take.
struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t size = 0;
    int family = AF_UNSPEC;
    Fd directory = Fd();  // that the address goes through, for long paths
    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

/// A path that is too long for a socket's address goes through its directory's descriptor; one that
/// begins with @ names a socket without a file (Linux' abstract namespace).
inline SocketAddress unix_address(const Address& a) {
    SocketAddress s;
    auto* un = reinterpret_cast<sockaddr_un*>(&s.storage);
    un->sun_family = AF_UNIX;
    s.family = AF_UNIX;
    auto path = a.path;
    const bool no_file = path.starts_with('@');
    if (path.size() >= sizeof un->sun_path && !no_file) {
        const auto slash = path.rfind('/');
        const auto parent = path.substr(0, slash + 1);
        s.directory = Fd(::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        if (!s.directory) throw_errno("cannot open the socket's directory", parent);
        path = "/proc/self/fd/" + std::to_string(s.directory.get()) + path.substr(slash);
    }
    if (path.size() >= sizeof un->sun_path)
        throw ContractError("the file's name is too long for a socket", a.text(),
                            "Use a shorter name");
    std::memcpy(un->sun_path, path.c_str(), path.size() + 1);
    if (no_file) un->sun_path[0] = '\0';
    s.size = static_cast<socklen_t>(no_file ? offsetof(sockaddr_un, sun_path) + path.size()
                                            : sizeof(sockaddr_un));
    return s;
}

inline std::vector<SocketAddress> resolve(const Address& a, bool to_listen) {
    std::vector<SocketAddress> all;
    if (a.scheme == "unix") {
        all.push_back(unix_address(a));
        return all;
    }
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV | (to_listen ? AI_PASSIVE : 0);
    addrinfo* found = nullptr;
    const int error = ::getaddrinfo(a.host.c_str(), std::to_string(a.port).c_str(), &hints, &found);
    if (error != 0)
        throw TransportError(std::string("cannot resolve the host: ") + ::gai_strerror(error),
                             a.text(), "Check the host's name");
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, ::freeaddrinfo);
    for (const auto* i = found; i; i = i->ai_next) {
        SocketAddress s;
        std::memcpy(&s.storage, i->ai_addr, i->ai_addrlen);
        s.size = i->ai_addrlen;
        s.family = i->ai_family;
        all.push_back(std::move(s));
    }
    return all;
}

/// A peer that vanishes without a word is noticed: probes after 10 s of silence, and unacknowledged
/// bytes for 30 s end the connection.
inline void tune_tcp(int fd) {
    const auto set = [fd](int level, int name, int value) {
        ::setsockopt(fd, level, name, &value, sizeof value);  // helps, need not succeed
    };
    set(IPPROTO_TCP, TCP_NODELAY, 1);
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
    set(IPPROTO_TCP, TCP_KEEPIDLE, 10);
    set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
    set(IPPROTO_TCP, TCP_KEEPCNT, 4);
    set(IPPROTO_TCP, TCP_USER_TIMEOUT, 30'000);
}

inline bool try_again(int error) {
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

/// Sends all bytes of the pieces, with a descriptor beside the first byte if one is given.
inline void send_all(int fd, std::vector<iovec> pieces, int descriptor, const Limit& limit,
                     const std::string& peer) {
    std::size_t at = 0;
    while (at < pieces.size()) {
        if (pieces[at].iov_len == 0) {
            ++at;
            continue;
        }
        msghdr m{};
        m.msg_iov = pieces.data() + at;
        m.msg_iovlen = std::min<std::size_t>(pieces.size() - at, 64);
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
        if (descriptor >= 0) {
            m.msg_control = control;
            m.msg_controllen = sizeof control;
            auto* c = CMSG_FIRSTHDR(&m);
            c->cmsg_level = SOL_SOCKET;
            c->cmsg_type = SCM_RIGHTS;
            c->cmsg_len = CMSG_LEN(sizeof(int));
            std::memcpy(CMSG_DATA(c), &descriptor, sizeof descriptor);
        }
        const auto n = ::sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (!try_again(errno)) throw_socket("the peer went away while sending", peer);
            wait_ready(fd, POLLOUT, limit, "sending", peer);
            continue;
        }
        descriptor = -1;
        auto left = static_cast<std::size_t>(n);
        while (left > 0) {
            const auto step = std::min(left, pieces[at].iov_len);
            pieces[at].iov_base = static_cast<char*>(pieces[at].iov_base) + step;
            pieces[at].iov_len -= step;
            left -= step;
            if (pieces[at].iov_len == 0) ++at;
        }
        if (limit.cancelled && *limit.cancelled) limit.check("sending", peer);
    }
}

/// Takes the descriptor that came beside bytes. All that the kernel gave us are owned before any is
/// looked at, so that none stays open. Throws DataError where more than one came for a message, or
/// some that this process had no room for.
inline void take_descriptor(msghdr& m, Fd& into, const std::string& peer) {
    std::vector<Fd> all;
    all.reserve(m.msg_controllen / sizeof(int));
    for (auto* c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        for (std::size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
            int got = -1;
            std::memcpy(&got, reinterpret_cast<const char*>(c) + at, sizeof got);
            all.emplace_back(got);
        }
    }
    if (m.msg_flags & MSG_CTRUNC || all.size() + static_cast<bool>(into) > 1)
        throw DataError("a message brings more files than can be taken", peer,
                        "Check that both sides run the same version of eyas; raise ulimit -n if "
                        "this process has as many files open");
    if (!all.empty()) into = std::move(all[0]);
}

/// Receives exactly these bytes; a descriptor that comes beside them goes to `descriptor`.
inline void receive_all(int fd, std::span<std::byte> into, Fd* descriptor, const Limit& limit,
                        const std::string& peer) {
    while (!into.empty()) {
        iovec piece{into.data(), into.size()};
        msghdr m{};
        m.msg_iov = &piece;
        m.msg_iovlen = 1;
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
        if (descriptor) {
            m.msg_control = control;
            m.msg_controllen = sizeof control;
        }
        const auto n = ::recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n == 0)
            throw TransportError("the peer closed the connection", peer,
                                 "Check whether it was stopped");
        if (n < 0) {
            if (!try_again(errno)) throw_socket("the peer went away while receiving", peer);
            wait_ready(fd, POLLIN, limit, "receiving", peer);
            continue;
        }
        if (descriptor) take_descriptor(m, *descriptor, peer);
        into = into.subspan(static_cast<std::size_t>(n));
        if (limit.cancelled && *limit.cancelled) limit.check("receiving", peer);
    }
}

}  // namespace eyas::detail
