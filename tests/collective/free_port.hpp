#pragma once
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <stdexcept>

#include "eyas/core/file.hpp"

namespace eyas::test {

/// A port of this machine that nobody has. Not one of those that the system gives out by itself: a
/// process that connects to such a port before anybody listens may come to speak with itself.
inline std::uint16_t free_port() {
    static int next = 20'000 + static_cast<int>(::getpid()) % 8'000;
    for (int tries = 0; tries < 2'000; ++tries) {
        next = next >= 32'000 ? 20'000 : next + 1;
        const detail::Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in at{};
        at.sin_family = AF_INET;
        at.sin_port = htons(static_cast<std::uint16_t>(next));
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0)
            return static_cast<std::uint16_t>(next);
    }
    throw std::runtime_error("no free port");
}

}  // namespace eyas::test
