#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "eyas/transport/posix.hpp"
#include "eyas/transport/transport.hpp"

namespace eyas::test {

using Sockets = Transport<Posix>;

inline std::span<const std::byte> bytes_of(std::string_view s) {
    return std::as_bytes(std::span(s.data(), s.size()));
}
inline std::vector<std::byte> pattern(std::size_t n, unsigned seed) {
    std::vector<std::byte> v(n);
    for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<std::byte>((i * 31 + seed) & 255);
    return v;
}

/// Answers with what it got; some heads ask for something else.
struct Echo {
    struct Session {};
    std::shared_ptr<Session> open_session() { return std::make_shared<Session>(); }
    void serve(Session&, Request& r) {
        const std::string head(reinterpret_cast<const char*>(r.head().data()), r.head().size());
        ++served;
        if (head == "contract") throw ContractError("c", "w", "r");
        if (head == "stale") throw StaleReferenceError("s", "w", "r");
        if (head == "data") throw DataError("d", "w", "r");
        if (head == "resource") throw ResourceError("x", "w", "r");
        if (head == "memory") throw std::bad_alloc();
        if (head == "owner") throw OwnerLostError("o", "w", "r");
        if (head == "token") throw AuthenticationError("t", "w", "r");
        if (head == "transport") throw TransportError("t", "w", "r");
        if (head == "slow") std::this_thread::sleep_for(std::chrono::milliseconds(1500));
        if (head == "nothing") return;
        std::vector<std::vector<std::byte>> got;
        std::vector<std::span<std::byte>> places;
        for (const auto n : r.parts()) {
            got.emplace_back(n);
            places.emplace_back(got.back());
        }
        if (!r.parts().empty()) r.take(places);
        const std::vector<std::span<const std::byte>> parts(got.begin(), got.end());
        r.reply(r.head(), parts);
    }
    std::atomic<int> served = 0;
};

/// As if its clients were on another machine.
inline ServerOptions from_a_distance(ServerOptions o) {
    o.same_host = false;
    return o;
}

struct Pair {
    Sockets sockets;
    Echo echo;
    std::unique_ptr<Sockets::Server<Echo>> server;
    std::unique_ptr<Sockets::Client> client;

    explicit Pair(ClientOptions c = {}, ServerOptions s = {},
                  const std::string& at = "eyas+tcp://127.0.0.1:0")
        : server(sockets.serve(parse_address(at), echo, from_a_distance(std::move(s)))),
          client(sockets.client(server->address(), std::move(c))) {}
};

}  // namespace eyas::test
