#pragma once
#include <cstdint>
#include <exception>
#include <span>
#include <string>

#include "eyas/core/error_types.hpp"
#include "eyas/transport/handshake.hpp"

namespace eyas::detail {

/// Request head: number on the link (u64), seal (16 bytes), what the service reads.
/// Reply head: the same number, a seal, a status byte (0: good, else the type of an error whose
/// text follows), what the service wrote.
struct Envelope {
    static constexpr std::size_t request_bytes = 24, reply_bytes = 25;

    static WireWriter request(const Acquainted& a, std::uint64_t number,
                              std::span<const std::byte> body) {
        return sealed(a, Says::Request, number, body);
    }

    /// The service's part. Throws DataError for another number than the next, AuthenticationError
    /// for a wrong seal (DataError where no token is used).
    static std::span<const std::byte> open_request(std::span<const std::byte> head,
                                                   const Acquainted& a, std::uint64_t number,
                                                   const std::string& peer) {
        WireReader r(head, peer);
        const auto got = r.get<std::uint64_t>();
        if (got != number)
            r.fail("request " + std::to_string(got) + " instead of " + std::to_string(number));
        return open_seal(r, head, a, Says::Request, number);
    }

    static WireWriter reply(const Acquainted& a, std::uint64_t number,
                            std::span<const std::byte> body) {
        WireWriter w;
        w.put(std::uint8_t{0}).raw(body);
        return sealed(a, Says::Reply, number, w.bytes());
    }

    /// An error as a reply.
    static WireWriter reply(const Acquainted& a, std::uint64_t number, const std::exception& e) {
        WireWriter w;
        w.put(static_cast<std::uint8_t>(1 + error_type_of(e)));
        w.text(std::string_view(e.what()).substr(0, 4000));
        return sealed(a, Says::Reply, number, w.bytes());
    }

    /// What a reply holds: the service's part, or the error that it answered, as its type.
    struct Answer {
        std::span<const std::byte> body = {};
        std::exception_ptr error = {};
    };
    /// Throws TransportError for another number than the request's, DataError for a malformed one,
    /// and for a wrong seal as open_request does.
    static Answer open_reply(std::span<const std::byte> head, const Acquainted& a,
                             std::uint64_t number, const std::string& peer) {
        WireReader r(head, peer);
        const auto got = r.get<std::uint64_t>();
        if (got != number)
            throw TransportError("an answer to request " + std::to_string(got) + " instead of " +
                                     std::to_string(number),
                                 peer, "Run the same version of eyas on both sides");
        open_seal(r, head, a, Says::Reply, number);
        const auto status = r.get<std::uint8_t>();
        if (status == 0) return {.body = head.subspan(reply_bytes)};
        const auto text = r.text();
        r.end();
        return {.error = make_error(status - std::size_t{1}, text, peer, "The peer said so")};
    }

private:
    static WireWriter sealed(const Acquainted& a, Says says, std::uint64_t number,
                             std::span<const std::byte> body) {
        WireWriter w;
        w.put(number).raw(seal_of(a, says, number, body)).raw(body);
        return w;
    }
    static std::span<const std::byte> open_seal(WireReader& r, std::span<const std::byte> head,
                                                const Acquainted& a, Says says,
                                                std::uint64_t number) {
        const auto seal = r.raw(16);
        const auto body = head.subspan(request_bytes);
        if (same_secret(seal, seal_of(a, says, number, body))) return body;
        if (!a.keyed) r.fail("it was damaged on the way");
        throw AuthenticationError("a message that does not prove its sender", r.where(),
                                  "Connect again with the token");
    }
};

}  // namespace eyas::detail
