#pragma once
#include <cstdint>
#include <exception>
#include <span>
#include <string>

#include "eyas/core/error_types.hpp"
#include "eyas/transport/handshake.hpp"

namespace eyas::detail {

/// Request head: number on the link (u64), MAC (16 bytes), what the service reads.
/// Reply head: the same number, a status byte (0: good, else the type of an error whose text
/// follows), what the service wrote.
struct Envelope {
    static constexpr std::size_t request_bytes = 24, reply_bytes = 9;

    static WireWriter request(const Acquainted& a, std::uint64_t number,
                              std::span<const std::byte> body) {
        WireWriter w;
        w.put(number).raw(request_mac(a, number, body)).raw(body);
        return w;
    }

    /// The service's part. Throws DataError for another number than the next, AuthenticationError
    /// for a wrong MAC.
    static std::span<const std::byte> open_request(std::span<const std::byte> head,
                                                   const Acquainted& a, std::uint64_t number,
                                                   const std::string& peer) {
        WireReader r(head, peer);
        const auto got = r.get<std::uint64_t>();
        if (got != number)
            r.fail("request " + std::to_string(got) + " instead of " + std::to_string(number));
        const auto mac = r.raw(16);
        const auto body = head.subspan(request_bytes);
        if (!same_secret(mac, request_mac(a, number, body)))
            throw AuthenticationError("a request that does not prove its sender", peer,
                                      "Connect again with the token");
        return body;
    }

    static WireWriter reply(std::uint64_t number, std::span<const std::byte> body) {
        WireWriter w;
        w.put(number).put(std::uint8_t{0}).raw(body);
        return w;
    }

    /// An error as a reply.
    static WireWriter reply(std::uint64_t number, const std::exception& e) {
        WireWriter w;
        w.put(number).put(static_cast<std::uint8_t>(1 + error_type_of(e)));
        w.text(std::string_view(e.what()).substr(0, 4000));
        return w;
    }

    /// What a reply holds: the service's part, or the error that it answered, as its type.
    struct Answer {
        std::span<const std::byte> body = {};
        std::exception_ptr error = {};
    };
    /// Throws TransportError for another number than the request's, DataError for a malformed one.
    static Answer open_reply(std::span<const std::byte> head, std::uint64_t number,
                             const std::string& peer) {
        WireReader r(head, peer);
        const auto got = r.get<std::uint64_t>();
        if (got != number)
            throw TransportError("an answer to request " + std::to_string(got) + " instead of " +
                                     std::to_string(number),
                                 peer, "Run the same version of eyas on both sides");
        const auto status = r.get<std::uint8_t>();
        if (status == 0) return {.body = head.subspan(reply_bytes)};
        const auto text = r.text();
        r.end();
        return {.error = make_error(status - std::size_t{1}, text, peer, "The peer said so")};
    }
};

}  // namespace eyas::detail
