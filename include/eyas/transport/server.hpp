#pragma once
#include <algorithm>
#include <concepts>
#include <exception>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "eyas/transport/any_link.hpp"
#include "eyas/transport/envelope.hpp"
#include "eyas/transport/neighbour.hpp"

namespace eyas {

/// A request as a service sees it. `take` (once, where parts are announced) fills the places given;
/// reply (once) answers; the spans need to live until it returns.
class Request {
public:
    virtual ~Request() = default;
    virtual std::span<const std::byte> head() const = 0;
    virtual const std::vector<std::uint64_t>& parts() const = 0;
    virtual void take(std::span<const std::span<std::byte>> into) = 0;
    virtual void reply(std::span<const std::byte> head,
                       std::span<const std::span<const std::byte>> parts = {},
                       int descriptor = -1) = 0;
    virtual bool passes_descriptors() const = 0;
    virtual const std::string& peer() const = 0;
    virtual Limit limit() const = 0;  // of what serves it from now on: its time, and the server's
};

/// What a server runs. A session holds what one client has here, over all its links; it goes when
/// the last of them does (the client ended, or died). serve() may run for several links at once,
/// also of one session; it replies or throws (the error is then the reply).
template <class S>
concept TransportService = requires(S& service, typename S::Session& session, Request& request) {
    { service.open_session() } -> std::same_as<std::shared_ptr<typename S::Session>>;
    service.serve(session, request);
};

struct ServerOptions {
    std::string auth_token = {};
    std::chrono::milliseconds timeout{30'000};  // of a handshake, of the parts of one message
    std::size_t links = 1024;                   // more are refused
    bool same_host = true;  // clients on this machine may use a Unix socket instead
};

namespace detail {

/// Accepts links on one address and runs a thread for each. The service must outlive it. Any thread
/// but those that serve may call stop() and destroy it; both return when all threads have ended.
template <TransportBackend B, TransportService S>
class TransportServer {
    using Link = AnyLink;

public:
    /// Listens when it returns. Throws ResourceError when the address is not to be had.
    TransportServer(std::shared_ptr<B> backend, const Address& address, S& service,
                    ServerOptions options)
        : backend_(std::move(backend)),
          service_(service),
          options_(std::move(options)),
          listener_(backend_->listen(address)),
          near_(options_.same_host && address.scheme != "unix" ? listen_near() : nullptr),
          acceptor_([this] { accept_links(*listener_); }) {
        try {
            if (near_) near_acceptor_ = std::thread([this] { accept_links(*near_); });
        } catch (const std::system_error&) {  // no thread to be had
            near_.reset();
        }
    }
    TransportServer(const TransportServer&) = delete;
    TransportServer& operator=(const TransportServer&) = delete;
    ~TransportServer() { stop(); }

    Address address() const { return listener_->address(); }
    const Id128& boot() const { return boot_; }

    /// ContractError from inside serve(): it would wait for itself.
    void stop() {
        if (served_here_ == this)
            throw ContractError("a service stops its own server", address().text(),
                                "Stop it from another thread");
        stopping_ = true;
        listener_->close();
        if (near_) near_->close();
        const std::lock_guard one(stop_mutex_);
        if (acceptor_.joinable()) acceptor_.join();
        if (near_acceptor_.joinable()) near_acceptor_.join();
        reap(true);
    }

    std::size_t links() const {
        const std::lock_guard lock(mutex_);
        return static_cast<std::size_t>(
            std::ranges::count_if(peers_, [](const Peer& p) { return !p.ended; }));
    }
    std::size_t sessions() const {
        const std::lock_guard lock(mutex_);
        return static_cast<std::size_t>(std::ranges::count_if(
            sessions_, [](const auto& entry) { return !entry.second.expired(); }));
    }
    std::uint64_t refused() const { return refused_; }  // links without the token or out of form

private:
    static constexpr std::chrono::milliseconds reap_interval{500};

    struct Peer {
        std::unique_ptr<Link> link;
        std::thread thread = {};
        std::atomic<bool> ended = false;
    };

    // Null where this machine does not let us: clients then stay with the address.
    std::unique_ptr<Posix::Listener> listen_near() const {
        try {
            return Posix({}).listen(neighbour_address(boot_));
        } catch (const Error&) {
            return nullptr;
        }
    }

    template <class Listener>
    void accept_links(Listener& listener) {
        while (!stopping_) {
            try {
                auto link = listener.accept(Limit::within(reap_interval, &stopping_));
                if (link) start(any_link(std::move(link)));
            } catch (const TransportError&) {  // nobody came
            } catch (const std::exception&) {  // the machine is short of something
                std::this_thread::sleep_for(Limit::slice);
            }
            reap(false);
        }
    }

    void start(std::unique_ptr<Link> link) {
        const std::lock_guard lock(mutex_);
        if (peers_.size() >= options_.links) {
            ++refused_;
            return;
        }
        auto& peer = peers_.emplace_back();
        peer.link = std::move(link);
        try {
            peer.thread = std::thread([this, &peer] {
                talk(*peer.link);
                peer.link->close();
                peer.ended = true;
            });
        } catch (const std::system_error&) {  // no thread to be had
            peers_.pop_back();
            ++refused_;
        }
    }

    // Ends threads that are done, or all of them.
    void reap(bool all) {
        std::list<Peer> gone;
        {
            const std::lock_guard lock(mutex_);
            for (auto it = peers_.begin(); it != peers_.end();) {
                const auto next = std::next(it);
                if (all || it->ended) gone.splice(gone.end(), peers_, it);
                it = next;
            }
        }
        for (auto& p : gone) {
            p.link->close();
            p.thread.join();
        }
    }

    void talk(Link& link) {
        served_here_ = this;
        try {
            const auto known = Handshake::as_server(link, options_.auth_token, boot_,
                                                    Limit::within(handshake_time(), &stopping_));
            const auto session = session_of(known.client);
            for (std::uint64_t number = 0;; ++number)
                if (!serve_one(link, known, *session, number)) return;
        } catch (const AuthenticationError&) {
            ++refused_;
        } catch (const DataError&) {
            ++refused_;
        } catch (const std::exception&) {  // the peer went away: its session ends with its links
        }
    }

    // False where the link cannot go on.
    bool serve_one(Link& link, const Acquainted& known, typename S::Session& session,
                   std::uint64_t number) {
        auto m = link.receive({.cancelled = &stopping_});
        OneRequest request(*this, link, m, known, number);
        try {
            request.body = Envelope::open_request(m.head, known, number, link.peer());
            service_.serve(session, request);
            if (!request.replied)
                throw ContractError("the service did not answer", link.peer(), "Mend the service");
            return true;
        } catch (const std::exception& e) {
            if (request.replied) throw;
            const auto error = Envelope::reply(known, number, e);
            link.send({error.bytes()}, Limit::within(options_.timeout, &stopping_));
            return request.taken && !request.body.empty();
        }
    }

    struct OneRequest final : Request {
        OneRequest(TransportServer& s, Link& l, InMessage& m, const Acquainted& a, std::uint64_t n)
            : server(s), link(l), message(m), known(a), number(n), taken(m.parts.empty()) {}
        std::span<const std::byte> head() const override { return body; }
        const std::vector<std::uint64_t>& parts() const override { return message.parts; }
        void take(std::span<const std::span<std::byte>> into) override {
            link.receive_parts(into, limit());
            taken = true;
        }
        void reply(std::span<const std::byte> head, std::span<const std::span<const std::byte>> out,
                   int descriptor) override {
            const auto enveloped = Envelope::reply(known, number, head);
            replied = true;
            link.send({enveloped.bytes(), out, descriptor}, limit());
        }
        bool passes_descriptors() const override { return link.passes_descriptors(); }
        const std::string& peer() const override { return peer_name; }
        Limit limit() const override {
            return Limit::within(server.options_.timeout, &server.stopping_);
        }

        TransportServer& server;
        Link& link;
        InMessage& message;
        const Acquainted& known;
        std::uint64_t number;
        std::span<const std::byte> body = {};
        bool taken, replied = false;
        std::string peer_name = link.peer();
    };

    std::chrono::milliseconds handshake_time() const {
        return std::min(options_.timeout, std::chrono::milliseconds(5'000));
    }

    std::shared_ptr<typename S::Session> session_of(const Id128& client) {
        const std::lock_guard lock(mutex_);
        std::erase_if(sessions_, [](const auto& entry) { return entry.second.expired(); });
        auto session = sessions_[client].lock();
        if (!session) sessions_[client] = session = service_.open_session();
        return session;
    }

    static inline thread_local const TransportServer* served_here_ = nullptr;  // by this thread

    std::shared_ptr<B> backend_;
    S& service_;
    ServerOptions options_;
    Id128 boot_ = random_id();
    std::atomic<bool> stopping_ = false;
    std::atomic<std::uint64_t> refused_ = 0;
    mutable std::mutex mutex_;
    std::mutex stop_mutex_;
    std::list<Peer> peers_;
    std::map<Id128, std::weak_ptr<typename S::Session>> sessions_;
    std::unique_ptr<typename B::Listener> listener_;
    std::unique_ptr<Posix::Listener> near_;
    std::thread acceptor_, near_acceptor_;  // last: they start when the rest is there
};

}  // namespace detail
}  // namespace eyas
