// What a stranger sends to a socket: frames, sizes, heads, parts.
#include <sys/socket.h>

#include "eyas/transport/posix.hpp"
#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace eyas;
    if (size > 100'000) return 0;  // more than a socket takes without a reader
    int ends[2];
    fuzz::require(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    detail::Fd ours(ends[0]);
    Posix::Link link(detail::Fd(ends[1]), "fuzz", true);
    fuzz::require(::send(ours.get(), data, size, 0) == static_cast<ssize_t>(size));
    ours = detail::Fd();
    fuzz::refuse_or_read([&] {
        for (;;) {
            const auto message = link.receive(Limit::within(std::chrono::seconds(5)));
            fuzz::require(message.head.size() <= MessageBounds::head &&
                          message.parts.size() <= MessageBounds::parts &&
                          message.body_bytes() <= MessageBounds::body);
            if (message.parts.empty()) continue;
            if (message.body_bytes() > size) return;  // a receiver has its own bounds
            std::vector<std::vector<std::byte>> parts;
            for (const auto n : message.parts) parts.emplace_back(n);
            const std::vector<std::span<std::byte>> into(parts.begin(), parts.end());
            link.receive_parts(into, Limit::within(std::chrono::seconds(5)));
        }
    });
    return 0;
}
