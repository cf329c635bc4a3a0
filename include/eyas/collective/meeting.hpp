#pragma once
#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "eyas/collective/rendezvous.hpp"
#include "eyas/transport/posix.hpp"
#include "eyas/transport/wire.hpp"

namespace eyas::detail {

/// How ranks that know nothing of each other but rank 0's address exchange a few bytes: each brings
/// one string for every rank, rank 0 collects them and hands each rank what the others brought for
/// it. Every message is bounded, every wait has its limit; who is not a rank of this group is
/// turned away and changes nothing. Like the group itself it trusts its network.
class Meeting {
public:
    static constexpr std::size_t longest = 240;  // bytes of one string: 256 of them fit a message

    Meeting(const Rendezvous& r, const Limit& limit)
        : r_(r),
          limit_(limit),
          place_{"tcp", r.address, r.port, ""},
          where_("rank " + std::to_string(r.rank) + " of " + std::to_string(r.world) +
                 ", group at " + r.address + ":" + std::to_string(r.port)) {}

    /// `mine[p]`: for rank p. Returns what each rank brought for this one. Throws TransportError at
    /// the limit (on rank 0 it names the ranks that did not come), ContractError where another
    /// process has this rank or another idea of the world's size, ResourceError where the port is
    /// taken.
    std::vector<std::string> exchange(std::vector<std::string> mine) {
        return r_.rank == 0 ? host(std::move(mine)) : visit(mine);
    }
    /// The links over which they met, after exchange(): rank 0's to each other rank, at its place,
    /// and each other rank's to rank 0, at place 0.
    std::vector<std::unique_ptr<Posix::Link>> take_links() { return std::move(links_); }

private:
    static constexpr const char* greeting = "eyas group 1";
    using Strings = std::vector<std::string>;

    struct Guest {
        std::unique_ptr<Posix::Link> link;
        Strings brings;
    };

    std::vector<std::string> host(Strings mine) {
        Posix posix({});
        const auto listener = posix.listen(place_);
        std::vector<Guest> guests(static_cast<std::size_t>(r_.world));
        guests[0].brings = std::move(mine);
        for (int missing = r_.world - 1; missing > 0;) {
            std::unique_ptr<Posix::Link> link;
            try {
                link = listener->accept(limit_);
            } catch (const TransportError&) {
                turn_all_away(guests);
            }
            missing -= admit(std::move(link), guests);
        }
        for (std::size_t p = 1; p < guests.size(); ++p) answer(*guests[p].link, guests, p);
        Strings got;
        for (auto& g : guests) {
            got.push_back(g.brings[0]);
            links_.push_back(std::move(g.link));
        }
        return got;
    }

    /// Whether a rank that was missing came. Who says nothing soon is let go: a rank tries again.
    bool admit(std::unique_ptr<Posix::Link> link, std::vector<Guest>& guests) const {
        const auto soon = std::chrono::steady_clock::now() + std::chrono::seconds(2);
        try {
            const auto m = link->receive({std::min(soon, limit_.deadline), limit_.cancelled});
            WireReader in(m.head, link->peer());
            if (!m.parts.empty() || in.text() != greeting) in.fail("it is no rank's");
            const auto world = in.get<std::int32_t>(), rank = in.get<std::int32_t>();
            const auto to = static_cast<std::size_t>(rank);
            if (world != r_.world)
                return refuse(*link, "this group has " + std::to_string(r_.world) + " ranks, not " +
                                         std::to_string(world));
            if (rank < 1 || rank >= world || guests[to].link)
                return refuse(*link, "there is a rank " + std::to_string(rank) + " already");
            guests[to] = {nullptr, strings(in)};
            guests[to].link = std::move(link);
            return true;
        } catch (const DataError&) {
        } catch (const TransportError&) {
        }
        return false;
    }

    Strings strings(WireReader& in) const {
        Strings s(in.count(Rendezvous::most_ranks, sizeof(std::uint32_t)));
        if (s.size() != static_cast<std::size_t>(r_.world)) in.fail("strings of another world");
        for (auto& one : s) one = in.text(longest);
        in.end();
        return s;
    }
    static void put(WireWriter& out, const Strings& s) {
        out.put(static_cast<std::uint32_t>(s.size()));
        for (const auto& one : s) out.text(one);
    }

    void answer(Posix::Link& link, const std::vector<Guest>& guests, std::size_t to) const {
        Strings theirs;
        for (const auto& g : guests) theirs.push_back(g.brings[to]);
        WireWriter out;
        out.put(std::uint8_t{1});
        put(out, theirs);
        link.send({.head = out.bytes()}, limit_);
    }

    /// `over`: not the rank's own fault, and nobody needs to try again.
    static bool refuse(Posix::Link& link, const std::string& why, bool over = false) {
        WireWriter out;
        out.put(std::uint8_t{0}).put(static_cast<std::uint8_t>(over)).text(why);
        link.send({.head = out.bytes()}, Limit::within(std::chrono::seconds(1)));
        return false;
    }

    [[noreturn]] void turn_all_away(const std::vector<Guest>& guests) const {
        std::string missing;
        for (std::size_t p = 1; p < guests.size(); ++p)
            if (!guests[p].link) missing += (missing.empty() ? "" : ", ") + std::to_string(p);
        const auto why = is_interrupted()
                             ? "rank 0 was interrupted before rank " + missing + " came"
                             : "rank " + missing + " did not come within " +
                                   std::to_string(r_.timeout.count()) + " ms";
        for (const auto& g : guests) {
            if (!g.link) continue;
            try {
                refuse(*g.link, why, true);
            } catch (const TransportError&) {  // it is gone, too
            }
        }
        fail(why);
    }

    bool is_interrupted() const { return limit_.cancelled && *limit_.cancelled; }

    [[noreturn]] void fail(const std::string& why) const {
        if (is_interrupted()) throw TransportError(why, where_, "Start all ranks again");
        throw TransportError(
            why, where_,
            "Check that every rank was started, with the same MASTER_ADDR, "
            "MASTER_PORT and WORLD_SIZE, and reaches rank 0; or raise the time-out");
    }

    /// Until rank 0 is there and lets this one in.
    Strings visit(const Strings& mine) {
        WireWriter hello;
        hello.text(greeting).put(std::int32_t{r_.world}).put(std::int32_t{r_.rank});
        put(hello, mine);
        for (;;) {
            std::string why;
            try {
                Posix posix({});
                auto link = posix.connect(place_, limit_);
                link->send({.head = hello.bytes()}, limit_);
                auto theirs = answered(link->receive(limit_).head, link->peer());
                links_.push_back(std::move(link));
                return theirs;
            } catch (const Refused& r) {
                if (r.over) fail(r.why);
                throw ContractError(r.why, where_,
                                    "Give all ranks the same WORLD_SIZE, and each its own RANK");
            } catch (const DataError& e) {
                why = e.what();
            } catch (const TransportError& e) {
                why = e.what();
            }
            if (is_interrupted()) fail("interrupted before rank 0 let it in (" + why + ")");
            if (std::chrono::steady_clock::now() >= limit_.deadline)
                fail("rank 0 did not let it in within " + std::to_string(r_.timeout.count()) +
                     " ms (" + why + ")");
            std::this_thread::sleep_for(std::chrono::milliseconds(limit_.wait_ms()));
        }
    }

    struct Refused {
        std::string why;
        bool over;
    };
    Strings answered(const std::vector<std::byte>& head, const std::string& peer) const {
        WireReader in(head, peer);
        if (in.get<std::uint8_t>() == 1) return strings(in);
        const bool over = in.get<std::uint8_t>() != 0;
        throw Refused{in.text(), over};
    }

    Rendezvous r_;
    Limit limit_;
    Address place_;
    std::string where_;
    std::vector<std::unique_ptr<Posix::Link>> links_;
};

/// The address of this machine from which rank 0 is reached, as digits: where the group's own
/// connections belong. Empty, with the reason in `why`, where the name means nothing (yet) or no
/// way leads there.
inline std::string find_address_towards(const Address& place, std::string& why) {
    try {
        for (const auto& to : resolve(place, false)) {
            const Fd fd(::socket(to.family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
            SocketAddress own;
            own.size = sizeof own.storage;
            auto* at = reinterpret_cast<sockaddr*>(&own.storage);
            char digits[NI_MAXHOST];
            // Nothing is sent: the kernel only chooses the way.
            if (!fd || ::connect(fd.get(), to.get(), to.size) != 0 ||
                ::getsockname(fd.get(), at, &own.size) != 0)
                why = std::strerror(errno);
            else if (::getnameinfo(at, own.size, digits, sizeof digits, nullptr, 0,
                                   NI_NUMERICHOST) == 0)
                return digits;
        }
    } catch (const TransportError& e) {
        why = e.what();
    }
    return "";
}

/// The same, waiting for it until the limit. Throws TransportError then, or where it is called off.
inline std::string address_towards(const Rendezvous& r, const Limit& limit) {
    const Address place{"tcp", r.address, r.port, ""};
    for (std::string why;;) {
        auto own = find_address_towards(place, why);
        if (!own.empty()) return own;
        if (limit.cancelled && *limit.cancelled)
            throw TransportError("interrupted before a way led there (" + why + ")", place.text(),
                                 "Start all ranks again");
        if (std::chrono::steady_clock::now() >= limit.deadline)
            throw TransportError("no way leads there: " + why, place.text(),
                                 "Check MASTER_ADDR and this machine's network");
        std::this_thread::sleep_for(std::chrono::milliseconds(limit.wait_ms()));
    }
}

}  // namespace eyas::detail
