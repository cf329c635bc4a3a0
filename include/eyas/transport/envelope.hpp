#pragma once
#include <cstdint>
#include <exception>
#include <span>
#include <string>

#include "eyas/transport/handshake.hpp"

namespace eyas::detail {

/// Request head: number on the link (u64), MAC (16 bytes), what the service reads.
/// Reply head: the same number, a status byte (0: good, else the type of an error whose text
/// follows), what the service wrote.
struct Envelope {
    static constexpr std::size_t request_bytes = 24;

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

    /// An error as a reply; the exception in flight.
    static WireWriter reply_current_error(std::uint64_t number) {
        WireWriter w;
        const auto say = [&](std::uint8_t type, const char* text) {
            w.put(number).put(type).text(std::string_view(text).substr(0, 4000));
        };
        try {
            throw;
        } catch (const StaleReferenceError& e) {
            say(1, e.what());
        } catch (const AuthenticationError& e) {
            say(2, e.what());
        } catch (const ContractError& e) {
            say(3, e.what());
        } catch (const DataError& e) {
            say(4, e.what());
        } catch (const OwnerLostError& e) {
            say(5, e.what());
        } catch (const TransportError& e) {
            say(6, e.what());
        } catch (const std::exception& e) {  // ResourceError, no memory
            say(7, e.what());
        }
        return w;
    }

    /// Whether a reply is an error, where it is long enough to say so.
    static bool is_error(std::span<const std::byte> head) {
        return head.size() > 8 && head[8] != std::byte{0};
    }

    /// The service's part of a good reply; throws the error of a bad one, as its type.
    static std::span<const std::byte> open_reply(std::span<const std::byte> head,
                                                 std::uint64_t number, const std::string& peer) {
        WireReader r(head, peer);
        const auto got = r.get<std::uint64_t>();
        if (got != number)
            throw TransportError("an answer to request " + std::to_string(got) + " instead of " +
                                     std::to_string(number),
                                 peer, "Run the same version of eyas on both sides");
        const auto type = r.get<std::uint8_t>();
        if (type == 0) return head.subspan(9);
        const auto text = r.text();
        const std::string remedy = "It was said by the peer";
        switch (type) {
            case 1:
                throw StaleReferenceError(text, peer, remedy);
            case 2:
                throw AuthenticationError(text, peer, remedy);
            case 3:
                throw ContractError(text, peer, remedy);
            case 4:
                throw DataError(text, peer, remedy);
            case 5:
                throw OwnerLostError(text, peer, remedy);
            case 7:
                throw ResourceError(text, peer, remedy);
            default:
                throw TransportError(text, peer, remedy);
        }
    }
};

}  // namespace eyas::detail
