#pragma once
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/transport/frame.hpp"
#include "eyas/transport/socket.hpp"

namespace eyas {

/// Byte streams of the operating system: eyas+tcp:// between machines, eyas+unix:// on one, where
/// files can be handed over too. Every wait has its limit; nothing blocks in the kernel.
class Posix {
public:
    struct Options {
        int buffer_bytes = 0;  // of the kernel per direction; 0: its own choice, which grows
    };
    struct Region {};  // nothing to register

    explicit Posix(Options options) : options_(options) {}
    static bool serves(std::string_view scheme) { return scheme == "tcp" || scheme == "unix"; }

    class Link {
    public:
        Link(detail::Fd fd, std::string peer, bool local)
            : fd_(std::move(fd)), peer_(std::move(peer)), local_(local) {}

        void send(const OutMessage& m, const Limit& limit) {
            if (m.descriptor >= 0 && !local_)
                throw ContractError("a file cannot be handed over to another machine", peer_,
                                    "Send the bytes");
            auto frame = detail::Frame::encode(m);
            std::vector<iovec> pieces{{frame.data(), frame.size()}};
            for (const auto& p : m.parts)
                pieces.push_back({const_cast<std::byte*>(p.data()), p.size()});
            detail::send_all(fd_.get(), std::move(pieces), m.descriptor, limit, peer_);
        }

        InMessage receive(const Limit& limit) {
            if (waiting_)
                throw ContractError("the parts of the last message were not taken", peer_,
                                    "Call receive_parts first");
            InMessage m;
            std::array<std::byte, detail::Frame::fixed> fixed;
            detail::receive_all(fd_.get(), fixed, local_ ? &m.descriptor : nullptr, limit, peer_);
            const auto frame = detail::Frame::decode(fixed, peer_);
            if (frame.descriptor != static_cast<bool>(m.descriptor))
                throw DataError("a message announces a file and brings none, or the reverse", peer_,
                                "Check that both sides run the same version of eyas");
            std::vector<std::byte> sizes(std::size_t{8} * frame.parts);
            detail::receive_all(fd_.get(), sizes, nullptr, limit, peer_);
            m.parts = detail::Frame::decode_sizes(sizes, peer_);
            m.head.resize(frame.head);
            detail::receive_all(fd_.get(), m.head, nullptr, limit, peer_);
            announced_ = m.parts;
            waiting_ = !m.parts.empty();
            return m;
        }

        void receive_parts(std::span<const std::span<std::byte>> into, const Limit& limit) {
            detail::check_parts(announced_, into, peer_);
            for (const auto& place : into)
                detail::receive_all(fd_.get(), place, nullptr, limit, peer_);
            waiting_ = false;
            announced_.clear();
        }

        /// Whether the peer has sent something, or is gone. Does not wait.
        bool has_news() const {
            pollfd p{fd_.get(), POLLIN, 0};
            return ::poll(&p, 1, 0) > 0;
        }

        void close() { ::shutdown(fd_.get(), SHUT_RDWR); }
        const std::string& peer() const { return peer_; }
        bool passes_descriptors() const { return local_; }

    private:
        detail::Fd fd_;
        std::string peer_;
        bool local_;
        std::vector<std::uint64_t> announced_;
        bool waiting_ = false;
    };

    class Listener {
    public:
        Listener(detail::Fd fd, Address address)
            : fd_(std::move(fd)), address_(std::move(address)), file_(file()) {}
        Listener(const Listener&) = delete;
        Listener& operator=(const Listener&) = delete;
        ~Listener() {
            if (file_ && file() == file_) ::unlink(address_.path.c_str());  // still its own
        }

        std::unique_ptr<Link> accept(const Limit& limit) {
            for (;;) {
                if (closed_) return nullptr;
                const int got = ::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC);
                if (got >= 0) {
                    const bool local = address_.scheme == "unix";
                    if (!local) detail::tune_tcp(got);
                    return std::make_unique<Link>(detail::Fd(got), "a peer of " + address_.text(),
                                                  local);
                }
                if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                    ::poll(nullptr, 0, limit.wait_ms());  // until somebody gives some back
                    limit.check("accepting", address_.text());
                } else if (detail::try_again(errno) || errno == ECONNABORTED) {
                    pollfd p{fd_.get(), POLLIN, 0};
                    if (::poll(&p, 1, limit.wait_ms()) <= 0 && !closed_)
                        limit.check("waiting for a peer", address_.text());
                } else {
                    detail::throw_socket("cannot accept", address_.text());
                }
            }
        }
        Address address() const { return address_; }
        void close() { closed_ = true; }

    private:
        // Which file has the address' name; nothing where it has none.
        std::optional<std::pair<dev_t, ino_t>> file() const {
            struct stat st {};
            if (!address_.path.starts_with('/') || ::lstat(address_.path.c_str(), &st) != 0)
                return std::nullopt;
            return std::pair(st.st_dev, st.st_ino);
        }

        detail::Fd fd_;
        Address address_;
        std::optional<std::pair<dev_t, ino_t>> file_;
        std::atomic<bool> closed_ = false;
    };

    std::unique_ptr<Link> connect(const Address& a, const Limit& limit) {
        require_served(a);
        int error = 0;
        for (const auto& to : detail::resolve(a, false)) {
            detail::Fd fd = open_socket(to.family);
            if (::connect(fd.get(), to.get(), to.size) != 0) {
                error = errno;
                if (error != EINPROGRESS && error != EAGAIN && error != EINTR) continue;
                detail::wait_ready(fd.get(), POLLOUT, limit, "connecting", a.text());
                socklen_t n = sizeof error;
                ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &n);
                if (error != 0) continue;
            }
            return std::make_unique<Link>(std::move(fd), a.text(), a.scheme == "unix");
        }
        detail::throw_socket("cannot connect", a.text(), error);
    }

    /// A socket file that no process listens on any more is replaced.
    std::unique_ptr<Listener> listen(const Address& a) {
        require_served(a);
        if (a.scheme == "unix") remove_dead_socket(a);
        int error = 0;
        for (const auto& at : detail::resolve(a, true)) {
            detail::Fd fd = open_socket(at.family);
            const int yes = 1;
            ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
            if (::bind(fd.get(), at.get(), at.size) != 0 || ::listen(fd.get(), 128) != 0) {
                error = errno;
                continue;
            }
            Address bound = a;
            if (a.scheme == "tcp") bound.port = port_of(fd.get());
            return std::make_unique<Listener>(std::move(fd), bound);
        }
        throw ResourceError(std::string("cannot listen: ") + std::strerror(error), a.text(),
                            "Choose a free port or path on this machine");
    }

    Region register_region(std::span<std::byte>) { return {}; }

private:
    static void require_served(const Address& a) {
        if (!serves(a.scheme))
            throw ContractError("is not an address of sockets", a.text(),
                                "Use eyas+tcp://HOST:PORT or eyas+unix:///PATH");
    }

    detail::Fd open_socket(int family) const {
        detail::Fd fd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        if (!fd) detail::throw_errno("cannot open a socket", "Posix");
        if (family != AF_UNIX) detail::tune_tcp(fd.get());
        if (options_.buffer_bytes > 0)
            for (const int name : {SO_SNDBUF, SO_RCVBUF})
                ::setsockopt(fd.get(), SOL_SOCKET, name, &options_.buffer_bytes, sizeof(int));
        return fd;
    }

    static std::uint16_t port_of(int fd) {
        detail::SocketAddress s;
        s.size = sizeof s.storage;
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&s.storage), &s.size);
        return ntohs(s.storage.ss_family == AF_INET6
                         ? reinterpret_cast<sockaddr_in6*>(&s.storage)->sin6_port
                         : reinterpret_cast<sockaddr_in*>(&s.storage)->sin_port);
    }

    void remove_dead_socket(const Address& a) {
        struct stat st {};
        if (::lstat(a.path.c_str(), &st) != 0 || !S_ISSOCK(st.st_mode)) return;
        const auto at = detail::unix_address(a);
        const detail::Fd fd = open_socket(AF_UNIX);
        // Anything else may come from a process that is only busy.
        if (::connect(fd.get(), at.get(), at.size) != 0 && errno == ECONNREFUSED)
            ::unlink(a.path.c_str());
    }

    Options options_;
};
static_assert(TransportBackend<Posix>);

}  // namespace eyas
