#pragma once
#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "eyas/transport/any_link.hpp"
#include "eyas/transport/handshake.hpp"
#include "eyas/transport/neighbour.hpp"

namespace eyas {

struct ClientOptions {
    std::string auth_token = {};
    std::chrono::milliseconds timeout{30'000};           // of a call, connecting included
    std::chrono::milliseconds reconnect_timeout{5'000};  // a lost peer may take so long to return
    std::size_t links = 4;  // kept open; more calls at once than that wait for one
    bool same_host = true;  // a server on this machine is spoken to over a Unix socket, which maps
};

namespace detail {

/// A link whose two ends know each other, and how far its numbered requests are.
struct KnownLink {
    std::unique_ptr<AnyLink> link;
    Acquainted known;
    std::uint64_t sent = 0, answered = 0;
};

/// A few links to one address: made when needed, again after a loss, with back-off. Thread-safe.
template <TransportBackend B>
class LinkPool {
public:
    using Known = KnownLink;

    LinkPool(std::shared_ptr<B> backend, Address address, ClientOptions options)
        : backend_(std::move(backend)),
          address_(std::move(address)),
          options_(std::move(options)),
          id_(random_id()) {
        if (options_.links < 1 || options_.timeout.count() <= 0)
            throw ContractError("no link or no time", address_.text(),
                                "Use links >= 1 and a positive time-out");
    }

    /// One link, the holder's alone. It goes back to the pool where keep() was called, and is
    /// dropped, with the idle ones of the same peer, where not: they are likely to be lost too.
    class Held {
    public:
        Held(LinkPool& pool, Known link) : pool_(pool), link_(std::move(link)) {}
        Held(const Held&) = delete;
        Held& operator=(const Held&) = delete;
        ~Held() { pool_.take_back(keep_ ? &link_ : nullptr); }
        Known& link() { return link_; }
        void keep() { keep_ = true; }

    private:
        LinkPool& pool_;
        Known link_;
        bool keep_ = false;
    };

    /// Throws OwnerLostError when a peer that was reached before is gone, TransportError when none
    /// was ever there, AuthenticationError.
    std::unique_ptr<Held> take(const Limit& limit) {
        std::unique_lock lock(mutex_);
        while (idle_.empty() && out_ >= options_.links) {
            changed_.wait_for(lock, Limit::slice);
            limit.check("waiting for a free link", address_.text());
        }
        limit.check("calling", address_.text());
        if (!idle_.empty()) {
            Known link = std::move(idle_.back());
            idle_.pop_back();
            ++out_;
            return std::make_unique<Held>(*this, std::move(link));
        }
        ++out_;
        lock.unlock();
        try {
            auto link = connect(limit);
            remember(link.known.boot);
            return std::make_unique<Held>(*this, std::move(link));
        } catch (...) {
            take_back(nullptr);
            throw;
        }
    }

    /// Of the server that was reached last; nothing before the first time.
    std::optional<Id128> boot() const {
        const std::lock_guard lock(mutex_);
        return boot_;
    }
    /// How often the peer was found to have been started again.
    std::uint64_t restarts() const {
        const std::lock_guard lock(mutex_);
        return restarts_;
    }
    /// Links made so far, also those after a loss.
    std::uint64_t connections() const {
        const std::lock_guard lock(mutex_);
        return connections_;
    }
    const Address& address() const { return address_; }
    const ClientOptions& options() const { return options_; }
    B& backend() { return *backend_; }

private:
    void take_back(Known* link) {
        std::vector<Known> dropped;  // closed without the lock
        {
            const std::lock_guard lock(mutex_);
            --out_;
            if (link && boot_ == link->known.boot)
                idle_.push_back(std::move(*link));
            else if (!link)
                dropped.swap(idle_);
        }
        changed_.notify_one();
    }

    void remember(const Id128& boot) {
        const std::lock_guard lock(mutex_);
        ++connections_;
        if (boot_ && *boot_ != boot) ++restarts_;
        boot_ = boot;
    }

    Known connect(const Limit& limit) {
        using Clock = std::chrono::steady_clock;
        const Limit mine{std::min(limit.deadline, Clock::now() + options_.reconnect_timeout),
                         limit.cancelled};
        for (auto pause = std::chrono::milliseconds(10);;
             pause = std::min(pause * 2, std::chrono::milliseconds(500))) {
            try {
                Known k;
                k.link = any_link(backend_->connect(address_, mine));
                k.known = Handshake::as_client(*k.link, options_.auth_token, id_, mine);
                if (options_.same_host && !k.link->passes_descriptors()) go_near(k, mine);
                return k;
            } catch (const TransportError& e) {
                const bool cancelled = mine.cancelled && *mine.cancelled;
                if (cancelled || Clock::now() + pause >= mine.deadline) {
                    if (!boot() || cancelled) throw;
                    throw OwnerLostError(std::string("the peer is gone: ") + e.what(),
                                         address_.text(), "Start it again");
                }
            }
            for (const auto until = Clock::now() + pause; Clock::now() < until;) {
                mine.check("connecting", address_.text());
                std::this_thread::sleep_for(std::min(pause, Limit::slice));
            }
        }
    }

    // Goes on over a Unix socket where the server is on this machine.
    void go_near(Known& k, const Limit& limit) const {
        Acquainted known;
        auto link = find_neighbour(k.known.boot, options_.auth_token, id_, limit, known);
        if (!link) return;
        k.link = any_link(std::move(link));
        k.known = known;
    }

    std::shared_ptr<B> backend_;
    Address address_;
    ClientOptions options_;
    Id128 id_;

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Known> idle_;
    std::size_t out_ = 0;
    std::optional<Id128> boot_;
    std::uint64_t restarts_ = 0, connections_ = 0;
};

}  // namespace detail
}  // namespace eyas
