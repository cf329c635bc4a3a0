#pragma once
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "eyas/core/checksum.hpp"
#include "eyas/core/random_id.hpp"
#include "eyas/transport/concept.hpp"
#include "eyas/transport/wire.hpp"

namespace eyas::detail {

using Mac = std::array<std::byte, 32>;

inline Mac hmac_sha256(std::span<const std::byte> key, std::span<const std::byte> text) {
    Mac out;
    unsigned n = 0;
    const auto* k = key.empty() ? static_cast<const void*>("") : key.data();
    if (!::HMAC(::EVP_sha256(), k, static_cast<int>(key.size()),
                reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                reinterpret_cast<unsigned char*>(out.data()), &n))
        throw ResourceError("HMAC-SHA-256 failed", "transport", "Check libcrypto");
    return out;
}

/// The comparison takes the same time wherever they differ.
inline bool same_secret(std::span<const std::byte> a, std::span<const std::byte> b) {
    return a.size() == b.size() && ::CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

/// What both sides of a link know once they trust each other.
struct Acquainted {
    Id128 client{};  // one per client object, the same on all its links
    Id128 boot{};    // one per server object: a restarted peer is a new peer
    bool keyed = false;
    Mac key{};  // of this link's requests, where a token is used
};

/// The two sides prove to each other that they know the token, which never crosses the wire:
///   client: version, client id, nonce          server: version, boot id, nonce, asks for a token?
///   client: HMAC(token, "client" + all above)  server: accepted?, HMAC(token, "server" + all
///   above)
/// Nonces make each proof good for one link only; the link's key is a third HMAC of the same text.
class Handshake {
public:
    static constexpr std::uint32_t version = 2;

    template <TransportLink L>
    static Acquainted as_client(L& link, const std::string& token, const Id128& client,
                                const Limit& limit) {
        Handshake h(token);
        h.transcript_.put(version).raw(client).raw(random_id());
        link.send({h.transcript_.bytes()}, limit);
        const auto challenge = link.receive(limit).head;
        WireReader r(challenge, link.peer());
        Acquainted a{.client = client, .boot = read_greeting(r)};
        const bool wanted = r.get<std::uint8_t>() != 0;
        r.end();
        if (wanted != !token.empty())
            throw AuthenticationError(
                wanted ? "the peer asks for a token" : "the peer knows no token", link.peer(),
                "Give both sides the same token (DISAGG_AUTH_TOKEN for the programs)");
        h.transcript_.raw(challenge);
        link.send({h.proof("client")}, limit);
        const auto answer = link.receive(limit).head;
        WireReader last(answer, link.peer());
        const bool accepted = last.get<std::uint8_t>() == 1;
        const auto proof = last.raw(sizeof(Mac));
        last.end();
        if (!accepted || (wanted && !same_secret(proof, h.proof("server"))))
            throw AuthenticationError("the token is not the peer's", link.peer(),
                                      "Give both sides the same token");
        return h.finish(a, wanted);
    }

    /// Throws AuthenticationError, after telling the client, when it does not know the token.
    template <TransportLink L>
    static Acquainted as_server(L& link, const std::string& token, const Id128& boot,
                                const Limit& limit) {
        Handshake h(token);
        const auto hello = link.receive(limit).head;
        WireReader r(hello, link.peer());
        const Acquainted met{.client = read_greeting(r), .boot = boot};
        r.end();
        h.transcript_.raw(hello);
        WireWriter challenge;
        challenge.put(version).raw(boot).raw(random_id());
        challenge.put(static_cast<std::uint8_t>(!token.empty()));
        link.send({challenge.bytes()}, limit);
        h.transcript_.raw(challenge.bytes());
        const auto proof = link.receive(limit).head;
        const bool good = token.empty() || same_secret(proof, h.proof("client"));
        WireWriter answer;
        answer.put(static_cast<std::uint8_t>(good)).raw(good ? h.proof("server") : Mac{});
        link.send({answer.bytes()}, limit);
        if (!good)
            throw AuthenticationError("the peer does not know the token", link.peer(),
                                      "Give both sides the same token");
        return h.finish(met, !token.empty());
    }

private:
    explicit Handshake(const std::string& token)
        : token_(std::as_bytes(std::span(token.data(), token.size()))) {}

    // Version, id and nonce, as both sides begin; the id.
    static Id128 read_greeting(WireReader& r) {
        if (const auto v = r.get<std::uint32_t>(); v != version)
            throw TransportError("speaks version " + std::to_string(v) + " of the protocol, not " +
                                     std::to_string(version),
                                 r.where(), "Run the same version of eyas on both sides");
        Id128 id;
        std::ranges::copy(r.raw(id.size()), id.begin());
        r.raw(id.size());  // the nonce; it is in the transcript
        return id;
    }
    Mac proof(std::string_view role) const {
        WireWriter w;
        w.text(role).raw(transcript_.bytes());
        return hmac_sha256(token_, w.bytes());
    }
    Acquainted finish(Acquainted a, bool keyed) const {
        a.keyed = keyed;
        if (keyed) a.key = proof("link");
        return a;
    }

    std::span<const std::byte> token_;
    WireWriter transcript_;
};

/// Which way a message goes: what one side said is not taken for the other's words.
enum class Says : std::uint8_t { Request = 1, Reply = 2 };

/// Proves that a head is the next one on its link and from who made the link. Without a token it
/// only tells damage on the way (XXH3-128).
inline Id128 seal_of(const Acquainted& a, Says says, std::uint64_t number,
                     std::span<const std::byte> body) {
    WireWriter w;
    w.put(static_cast<std::uint8_t>(says)).put(number).raw(body);
    Id128 out{};
    if (a.keyed) {
        const auto full = hmac_sha256(a.key, w.bytes());
        std::copy_n(full.begin(), out.size(), out.begin());
    } else {
        const auto hash = XXH3_128bits(w.bytes().data(), w.bytes().size());
        std::memcpy(out.data(), &hash, out.size());
    }
    return out;
}

}  // namespace eyas::detail
