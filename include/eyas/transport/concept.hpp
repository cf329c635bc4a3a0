#pragma once
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eyas/core/file.hpp"
#include "eyas/core/memory_resource.hpp"
#include "eyas/transport/address.hpp"

namespace eyas {

/// How long an operation may take, and who may call it off. A wait that reaches the deadline ends
/// with TransportError; so does one whose flag is raised (seen within `Limit::slice`).
struct Limit {
    std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
    const std::atomic<bool>* cancelled = nullptr;

    static constexpr std::chrono::milliseconds slice{50};  // longest sleep between two looks

    static Limit within(std::chrono::milliseconds time,
                        const std::atomic<bool>* cancelled = nullptr) {
        return {std::chrono::steady_clock::now() + time, cancelled};
    }
    /// Throws TransportError once the time is over or the operation was called off.
    void check(const std::string& doing, const std::string& peer) const {
        if (cancelled && *cancelled)
            throw TransportError(doing + " was cancelled", peer, "Nothing is left to do");
        if (std::chrono::steady_clock::now() >= deadline)
            throw TransportError(doing + " took longer than its deadline", peer,
                                 "Check that the peer makes progress, or raise the time-out");
    }
    /// Milliseconds to sleep before check() is due again: 0 to slice.
    int wait_ms() const {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        return static_cast<int>(
            std::max<std::int64_t>(0, std::min<std::int64_t>(slice.count(), left.count() + 1)));
    }
};

/// What one message may hold; a peer that announces more is refused.
struct MessageBounds {
    static constexpr std::size_t head = std::size_t{64} * 1024;    // bytes
    static constexpr std::size_t parts = 256;                      // bulk parts
    static constexpr std::uint64_t body = std::uint64_t{1} << 38;  // bytes of all parts
};

/// A message to send: a small head, and bulk parts that go straight from the caller's memory.
struct OutMessage {
    std::span<const std::byte> head;
    std::span<const std::span<const std::byte>> parts = {};
    int descriptor = -1;  // a file to hand over, where Link::passes_descriptors()
};

/// The beginning of a message that arrives: its parts wait until the receiver says where they go.
struct InMessage {
    std::vector<std::byte> head;
    std::vector<std::uint64_t> parts;  // bytes of each
    detail::Fd descriptor;             // empty where none was handed over

    std::uint64_t body_bytes() const {
        std::uint64_t n = 0;
        for (const auto p : parts) n += p;
        return n;
    }
};

/// One connection, message by message, in order. One thread at a time sends and receives; close()
/// may be called by any thread and ends what the others wait for with TransportError. After an
/// error only close() and destruction make sense; after one of send() also receive(), which gives
/// what the peer said before.
template <class L>
concept TransportLink = requires(L& link, const OutMessage& message, const Limit& limit,
                                 std::span<const std::span<std::byte>> into) {
    // Returns when the message's memory may be used again.
    link.send(message, limit);
    // Waits for the next message. Its parts must then be taken before anything else is received.
    { link.receive(limit) } -> std::same_as<InMessage>;
    // Takes the parts of the message just received; sizes must be those it announced
    // (ContractError).
    link.receive_parts(into, limit);
    link.close();
    { link.peer() } -> std::convertible_to<std::string>;  // for messages
    { link.passes_descriptors() } -> std::same_as<bool>;  // the peer is on this machine
};

/// Waits for links. accept() belongs to one thread; close() may be called by any.
template <class L, class Link>
concept TransportListener = requires(L& listener, const Limit& limit) {
    // Null once closed. Throws TransportError at the deadline.
    { listener.accept(limit) } -> std::same_as<std::unique_ptr<Link>>;
    { listener.address() } -> std::same_as<Address>;  // with the port that was given
    listener.close();
};

/// What a transport must offer: links between processes and the registration of memory. It knows
/// nothing of credentials, retries or what the messages mean: Transport<B> writes those once. A
/// backend object is thread-safe and outlives its links, listeners and regions.
template <class B>
concept TransportBackend = std::constructible_from<B, typename B::Options> &&
    TransportLink<typename B::Link> && TransportListener<typename B::Listener, typename B::Link> &&
    requires(B& b, const Address& address, const Limit& limit, std::span<std::byte> memory) {
    { B::serves(std::string_view("tcp")) } -> std::same_as<bool>;  // address schemes it speaks
    // Throws TransportError when nobody listens or at the deadline.
    { b.connect(address, limit) } -> std::same_as<std::unique_ptr<typename B::Link>>;
    { b.listen(address) } -> std::same_as<std::unique_ptr<typename B::Listener>>;
    // Memory that transfers go to and from, made ready once; the result undoes that when it goes.
    { b.register_region(memory) } -> std::movable;
};

/// A backend that may also write to memory of a device, where this machine has what it takes.
template <class B>
concept ReachesDevices = TransportBackend<B> &&
    requires(const B& cb, B& b, std::span<std::byte> memory, DeviceRoom& room) {
    { cb.reaches(std::string_view("cuda")) } -> std::same_as<bool>;
    // `memory` of that room. Throws ContractError where it is not within reach.
    { b.register_region(memory, room) } -> std::movable;
};

}  // namespace eyas
