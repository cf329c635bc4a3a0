#pragma once
#include <atomic>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "eyas/transport/posix.hpp"
#include "forked.hpp"

namespace eyas::conformance {

/// What a proxy does to the bytes of a connection from an offset on, in one direction.
struct Damage {
    enum Kind { None, Cut, Stall, Delay, Drop, Duplicate, Reorder, Flip } kind = None;
    bool to_client = false;
    std::uint64_t offset = 0;
    int connections = 1;  // the first so many; later ones are as they should be
};

/// A process between a client and a server on sockets, which passes bytes (and files that are
/// handed over) on and does the damage. Made before the client's threads.
class Proxy {
public:
    Proxy(const Address& listen, const Address& server, Damage damage,
          const std::filesystem::path& said)
        : process_([=] { run(listen, server, damage, said); }) {}

private:
    /// One direction of one connection.
    struct Stream {
        int from, to;
        Damage damage;
        std::uint64_t at = 0;

        void pass(std::span<const std::byte> bytes, int file) const {
            std::vector<std::byte> copy(bytes.begin(), bytes.end());
            if (!copy.empty())
                detail::send_all(to, {{copy.data(), copy.size()}}, file,
                                 Limit::within(std::chrono::seconds(20)), "proxy");
        }
        void end() const {
            ::shutdown(from, SHUT_RDWR);
            ::shutdown(to, SHUT_RDWR);
        }
        // The bytes from the offset on, once.
        void harm(std::vector<std::byte>& rest) {
            const auto n = std::min<std::size_t>(rest.size(), 24);
            switch (std::exchange(damage.kind, Damage::None)) {
                case Damage::Cut:
                    throw TransportError("cut", "proxy", "");
                case Damage::Stall:
                    for (;;) ::pause();
                case Damage::Delay:
                    ::usleep(60'000);
                    return;
                case Damage::Drop:
                    rest.erase(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(n));
                    return;
                case Damage::Duplicate:
                    rest.insert(rest.begin(), rest.begin(),
                                rest.begin() + static_cast<std::ptrdiff_t>(n));
                    return;
                case Damage::Reorder:
                    std::rotate(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(n / 2),
                                rest.begin() + static_cast<std::ptrdiff_t>(n));
                    return;
                case Damage::Flip:
                    rest[0] ^= std::byte{32};
                    return;
                case Damage::None:
                    return;
            }
        }
        void run() {
            std::vector<std::byte> buffer(8192);
            try {
                for (;;) {
                    detail::Fd file;
                    // The first byte as link do, for a file beside it; then what is there.
                    detail::receive_all(from, std::span(buffer).first(1), &file, {}, "proxy");
                    const auto more =
                        ::recv(from, buffer.data() + 1, buffer.size() - 1, MSG_DONTWAIT);
                    const auto n = 1 + static_cast<std::size_t>(std::max<ssize_t>(more, 0));
                    const auto clean = damage.kind == Damage::None || at + n <= damage.offset
                                           ? n
                                           : static_cast<std::size_t>(damage.offset - at);
                    pass(std::span(buffer).first(clean), file.get());
                    if (clean < n) {
                        std::vector<std::byte> rest(
                            buffer.begin() + static_cast<std::ptrdiff_t>(clean),
                            buffer.begin() + static_cast<std::ptrdiff_t>(n));
                        harm(rest);
                        pass(rest, clean ? -1 : file.get());
                        damage.offset = 0;
                    }
                    at += n;
                }
            } catch (const Error&) {
                end();
            }
        }
    };

    static void run(const Address& listen, const Address& server, Damage damage,
                    const std::filesystem::path& said) {
        const auto listening = bound(listen);
        auto at = listen;
        if (listen.scheme == "tcp") {
            sockaddr_in in{};
            socklen_t size = sizeof in;
            ::getsockname(listening.get(), reinterpret_cast<sockaddr*>(&in), &size);
            at.port = ntohs(in.sin_port);
        }
        write_text_file(said, at.text());
        for (int n = 0;; ++n) {
            const int client = ::accept(listening.get(), nullptr, nullptr);
            detail::Fd there(::socket(detail::resolve(server, false)[0].family, SOCK_STREAM, 0));
            const auto to = detail::resolve(server, false);
            if (client < 0 || ::connect(there.get(), to[0].get(), to[0].size) != 0) {
                ::close(client);
                continue;
            }
            const int back = ::dup(there.get());  // the process' end closes them all
            auto mine = n < damage.connections ? damage : Damage{};
            const auto none = Damage{};
            for (const bool to_client : {false, true})
                std::thread([s = Stream{to_client ? back : client, to_client ? client : back,
                                        to_client == mine.to_client ? mine : none}]() mutable {
                    s.run();
                }).detach();
        }
    }
    static detail::Fd bound(const Address& listen) {
        const auto at = detail::resolve(listen, true);
        detail::Fd fd(::socket(at[0].family, SOCK_STREAM, 0));
        demand(::bind(fd.get(), at[0].get(), at[0].size) == 0 && ::listen(fd.get(), 16) == 0,
               "the proxy listens");
        return fd;
    }

    Process process_;
};

}  // namespace eyas::conformance
