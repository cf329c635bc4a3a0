#pragma once
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "eyas/transport/envelope.hpp"
#include "eyas/transport/link_pool.hpp"

namespace eyas {

/// One request and what to do with its answer.
struct Call {
    using Take = std::function<void(std::span<const std::span<std::byte>>)>;
    using Answer =
        std::function<void(InMessage& message, std::span<const std::byte> head, const Take& take)>;

    std::span<const std::byte> head;  // what the service reads
    std::span<const std::span<const std::byte>> parts = {};
    /// Gets the service's head. Where the message has parts, calls `take` once with their places;
    /// they are filled when it returns. May run again when the call is repeated.
    Answer answer = {};
    bool repeatable = true;  // may be sent again when its answer was lost
};

namespace detail {

/// Calls to one address. Thread-safe; destroy it when no call is under way.
template <TransportBackend B>
class TransportClient : public LinkPool<B> {
    using Known = typename LinkPool<B>::Known;

public:
    using LinkPool<B>::LinkPool;

    /// Sends all on one link, small ones ahead of the answers, which are taken in order. One entry
    /// each, null where it succeeded. What a lost link left without answer is done again on a new
    /// one where it is repeatable. Entries hold TransportError (also at the deadline and after
    /// cancel()), OwnerLostError, AuthenticationError, and what the service or `answer` threw.
    std::vector<std::exception_ptr> call_each(std::span<Call> calls) {
        const auto limit = Limit::within(this->options().timeout, &cancelled_);
        std::vector<std::exception_ptr> status(calls.size());
        std::vector<std::size_t> left(calls.size());
        for (std::size_t i = 0; i < left.size(); ++i) left[i] = i;
        for (int attempt = 1; !left.empty(); ++attempt)
            left = one_attempt(calls, left, status, limit, attempt == most_attempts);
        return status;
    }

    void call(Call c) {
        if (const auto error = call_each({&c, 1})[0]) std::rethrow_exception(error);
    }

    /// From any thread: calls under way and to come end with TransportError until resume().
    void cancel() { cancelled_ = true; }
    void resume() { cancelled_ = false; }

private:
    static constexpr int most_attempts = 3;
    static constexpr std::size_t most_in_flight = 32;
    static constexpr std::size_t longest_ahead = 2048;  // bytes of a head

    // Ahead of answers go only requests that the kernel takes whole: two sides that both wait for
    // the other to receive would wait for ever.
    static bool may_go_ahead(const Call& c) {
        return c.parts.empty() && c.head.size() <= longest_ahead;
    }

    // Returns what is to be done again.
    std::vector<std::size_t> one_attempt(std::span<Call> calls,
                                         const std::vector<std::size_t>& left,
                                         std::vector<std::exception_ptr>& status,
                                         const Limit& limit, bool last) {
        std::size_t sent = 0, answered = 0;
        std::exception_ptr failure, cut;  // cut: why this link takes no more requests
        bool lost_link = false;
        try {
            const auto held = this->take(limit);
            auto& known = held->link();
            for (; answered < left.size(); ++answered) {
                while (!cut && sent < left.size() && sent - answered < most_in_flight) {
                    const auto& next = calls[left[sent]];
                    if (sent > answered && !may_go_ahead(next)) break;
                    if (!(cut = send(known, next, limit))) ++sent;
                }
                if (cut && answered > sent) std::rethrow_exception(cut);
                const auto& c = calls[left[answered]];
                status[left[answered]] =
                    cut ? last_words(known, c, limit, cut) : take_answer(known, c, limit);
            }
            if (!cut) held->keep();
            return {};
        } catch (const OwnerLostError&) {
            failure = std::current_exception();
        } catch (const TransportError&) {
            failure = std::current_exception();
            lost_link = !last && !cancelled_ && std::chrono::steady_clock::now() < limit.deadline;
        } catch (...) {  // a refusal, a malformed answer
            failure = std::current_exception();
        }
        std::vector<std::size_t> again;
        for (std::size_t i = answered; i < left.size(); ++i)
            if (lost_link && (i >= sent || calls[left[i]].repeatable))
                again.push_back(left[i]);
            else
                status[left[i]] = failure;
        return again;
    }

    // Why the link took no more of it, if that was so.
    static std::exception_ptr send(Known& k, const Call& c, const Limit& limit) {
        const auto head = Envelope::request(k.known, k.sent++, c.head);
        try {
            k.link->send({head.bytes(), c.parts}, limit);
            return nullptr;
        } catch (const TransportError&) {
            return std::current_exception();
        }
    }

    // A peer that refuses a request answers before it takes the parts, and hangs up: what it said
    // is the error then, not that the link broke.
    static std::exception_ptr last_words(Known& k, const Call& c, const Limit& limit,
                                         const std::exception_ptr& cut) {
        const auto soon = Limit::within(std::chrono::seconds(1), limit.cancelled);
        try {
            return take_answer(k, c, {std::min(soon.deadline, limit.deadline), limit.cancelled});
        } catch (const Error&) {
            std::rethrow_exception(cut);
        }
    }

    // The error of this call alone, if it had one; throws where the link is of no use any more.
    static std::exception_ptr take_answer(Known& k, const Call& c, const Limit& limit) {
        auto m = k.link->receive(limit);
        const auto [body, error] =
            Envelope::open_reply(m.head, k.known, k.answered++, k.link->peer());
        if (error) {
            if (!m.parts.empty()) refuse_parts(k);
            return error;
        }
        bool taken = m.parts.empty();
        const Call::Take take = [&](std::span<const std::span<std::byte>> into) {
            k.link->receive_parts(into, limit);
            taken = true;
        };
        try {
            if (c.answer) c.answer(m, body, take);
        } catch (...) {
            if (!taken) throw;  // the bytes are still in the link
            return std::current_exception();
        }
        if (!taken) refuse_parts(k);
        return nullptr;
    }

    [[noreturn]] static void refuse_parts(const Known& k) {
        throw DataError("an answer with bytes that nobody asked for", k.link->peer(),
                        "Check that both sides run the same version of eyas");
    }

    std::atomic<bool> cancelled_ = false;
};

}  // namespace detail
}  // namespace eyas
