#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "eyas/transport/concept.hpp"
#include "eyas/transport/wire.hpp"

namespace eyas::detail {

/// What goes before every message on a byte stream: 16 bytes, then 8 for each part's size, the
/// head, and the parts one after the other. A peer that speaks something else fails on the magic.
struct Frame {
    static constexpr std::uint32_t magic = 0x53415945;  // "EYAS"
    static constexpr std::size_t fixed = 16;

    std::uint32_t head = 0;   // bytes
    std::uint16_t parts = 0;  // count
    bool descriptor = false;  // one is handed over with the first byte

    /// Throws ContractError for a message beyond MessageBounds.
    static std::vector<std::byte> encode(const OutMessage& m) {
        std::uint64_t body = 0;
        for (const auto& p : m.parts) body += p.size();
        if (m.head.size() > MessageBounds::head || m.parts.size() > MessageBounds::parts ||
            body > MessageBounds::body)
            throw ContractError("a head of " + std::to_string(m.head.size()) + " bytes, " +
                                    std::to_string(m.parts.size()) + " parts, " +
                                    std::to_string(body) + " bytes of body are too much",
                                "message", "Split it into several");
        WireWriter w;
        w.put(magic).put(static_cast<std::uint32_t>(m.head.size()));
        w.put(static_cast<std::uint16_t>(m.parts.size()));
        w.put(static_cast<std::uint16_t>(m.descriptor >= 0)).put(std::uint32_t{0});
        for (const auto& p : m.parts) w.put(static_cast<std::uint64_t>(p.size()));
        w.raw(m.head);
        return {w.bytes().begin(), w.bytes().end()};
    }

    /// Throws DataError for bytes that are not a frame or announce too much.
    static Frame decode(std::span<const std::byte> bytes, const std::string& peer) {
        WireReader r(bytes, peer);
        if (r.get<std::uint32_t>() != magic) r.fail("it does not begin as eyas messages do");
        Frame f;
        f.head = r.get<std::uint32_t>();
        f.parts = r.get<std::uint16_t>();
        const auto flags = r.get<std::uint16_t>();
        const auto reserved = r.get<std::uint32_t>();
        r.end();
        if (f.head > MessageBounds::head) r.fail("a head of " + std::to_string(f.head) + " bytes");
        if (f.parts > MessageBounds::parts) r.fail(std::to_string(f.parts) + " parts");
        if (flags > 1 || reserved != 0) r.fail("unknown flags");
        f.descriptor = flags == 1;
        return f;
    }

    static std::vector<std::uint64_t> decode_sizes(std::span<const std::byte> bytes,
                                                   const std::string& peer) {
        WireReader r(bytes, peer);
        std::vector<std::uint64_t> sizes(bytes.size() / sizeof(std::uint64_t));
        std::uint64_t body = 0;
        for (auto& s : sizes) {
            s = r.get<std::uint64_t>();
            if (s > MessageBounds::body || (body += s) > MessageBounds::body)
                r.fail("a body of " + std::to_string(s) + " bytes or more");
        }
        return sizes;
    }
};

/// Throws ContractError unless `into` has exactly the announced sizes.
inline void check_parts(const std::vector<std::uint64_t>& announced,
                        std::span<const std::span<std::byte>> into, const std::string& peer) {
    bool same = announced.size() == into.size();
    for (std::size_t i = 0; same && i < into.size(); ++i) same = announced[i] == into[i].size();
    if (!same)
        throw ContractError("the parts of a message do not fit where they are to go", peer,
                            "Give as many places, of the announced sizes");
}

}  // namespace eyas::detail
