#pragma once
#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "eyas/transport/socket.hpp"
#include "eyas/transport/ucx_link.hpp"

namespace eyas {

/// UCX: eyas+ucx://HOST:PORT over the fastest way that both sides have (InfiniBand, RoCE, shared
/// memory, TCP; UCX_TLS chooses). Needs libucp. Make processes (fork) before the first object.
class Ucx {
public:
    struct Options {};
    using Link = detail::UcxLink;

    explicit Ucx(Options) : context_(std::make_shared<detail::UcxContext>()) {}
    static bool serves(std::string_view scheme) { return scheme == "ucx"; }

    /// A registration; memory must stay until it goes.
    class Region {
    public:
        Region(std::shared_ptr<detail::UcxContext> context, std::span<std::byte> memory,
               DeviceRoom* room = nullptr)
            : context_(std::move(context)),
              begin_(memory.data()),
              handle_(context_->add_region(memory, room)) {}
        Region(Region&& o) noexcept
            : context_(std::move(o.context_)), begin_(o.begin_), handle_(o.handle_) {}
        Region& operator=(Region&& o) noexcept {
            std::swap(context_, o.context_);
            std::swap(begin_, o.begin_);
            std::swap(handle_, o.handle_);
            return *this;
        }
        ~Region() {
            if (context_) context_->remove_region(begin_, handle_);
        }

    private:
        std::shared_ptr<detail::UcxContext> context_;
        const std::byte* begin_;
        ucp_mem_h handle_;
    };

    class Listener {
    public:
        Listener(std::shared_ptr<detail::UcxContext> context, Address address)
            : context_(std::move(context)), worker_(context_), address_(std::move(address)) {
            ucs_status_t status = UCS_ERR_INVALID_ADDR;
            for (const auto& at : detail::resolve(address_, true)) {
                ucp_listener_params_t p{};
                p.field_mask =
                    UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER;
                p.sockaddr = {at.get(), at.size};
                p.conn_handler = {on_request, this};
                status = ::ucp_listener_create(worker_.get(), &p, &listener_);
                if (status == UCS_OK) break;
            }
            if (status != UCS_OK)
                throw ResourceError(std::string("cannot listen: ") + ::ucs_status_string(status),
                                    address_.text(), "Choose a free port on this machine");
            read_port();
        }
        Listener(const Listener&) = delete;
        Listener& operator=(const Listener&) = delete;
        ~Listener() {
            for (auto* r : requests_) ::ucp_listener_reject(listener_, r);
            ::ucp_listener_destroy(listener_);
        }

        std::unique_ptr<Link> accept(const Limit& limit) {
            worker_.progress_until([&] { return closed_ || !requests_.empty(); }, limit,
                                   "waiting for a peer", address_.text());
            if (closed_) return nullptr;
            auto* request = requests_.front();
            requests_.pop_front();
            std::unique_ptr<detail::UcxWorker> worker;
            try {
                worker = std::make_unique<detail::UcxWorker>(context_);
            } catch (...) {
                ::ucp_listener_reject(listener_, request);
                throw;
            }
            ucp_ep_params_t p{};
            p.field_mask = UCP_EP_PARAM_FIELD_CONN_REQUEST;
            p.conn_request = request;
            return std::make_unique<Link>(std::move(worker), p, "a peer of " + address_.text());
        }
        Address address() const { return address_; }
        void close() {
            closed_ = true;
            worker_.signal();
        }

    private:
        static void on_request(ucp_conn_request_h request, void* self) {
            auto& l = *static_cast<Listener*>(self);
            if (l.requests_.size() < most_requests)
                l.requests_.push_back(request);
            else
                ::ucp_listener_reject(l.listener_, request);
        }

        void read_port() {
            ucp_listener_attr_t a{};
            a.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR;
            if (::ucp_listener_query(listener_, &a) != UCS_OK) return;
            address_.port =
                ntohs(a.sockaddr.ss_family == AF_INET6
                          ? reinterpret_cast<const sockaddr_in6*>(&a.sockaddr)->sin6_port
                          : reinterpret_cast<const sockaddr_in*>(&a.sockaddr)->sin_port);
        }

        static constexpr std::size_t most_requests = 128;

        std::shared_ptr<detail::UcxContext> context_;
        detail::UcxWorker worker_;
        Address address_;
        ucp_listener_h listener_ = nullptr;
        std::deque<ucp_conn_request_h> requests_;
        std::atomic<bool> closed_ = false;
    };

    std::unique_ptr<Link> connect(const Address& a, const Limit& limit) {
        require_served(a);
        limit.check("connecting", a.text());
        const auto all = detail::resolve(a, false);
        ucp_ep_params_t p{};
        p.field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR;
        p.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
        p.sockaddr = {all.front().get(), all.front().size};
        return std::make_unique<Link>(std::make_unique<detail::UcxWorker>(context_), p, a.text());
    }

    std::unique_ptr<Listener> listen(const Address& a) {
        require_served(a);
        return std::make_unique<Listener>(context_, a);
    }

    Region register_region(std::span<std::byte> memory) { return {context_, memory}; }
    /// Memory of a device: what UCX moves itself (rendezvous) goes there straight, short messages
    /// by the room.
    Region register_region(std::span<std::byte> memory, DeviceRoom& room) {
        if (!reaches(room.kind()))
            throw ContractError("UCX has no transports to memory of " + std::string(room.kind()),
                                "Ucx::register_region", "Ask reaches() before");
        return {context_, memory, &room};
    }
    /// Whether UCX has what it takes on this machine, with its environment (UCX_TLS).
    bool reaches(std::string_view kind) const { return context_->reaches(kind); }

private:
    static void require_served(const Address& a) {
        if (!serves(a.scheme))
            throw ContractError("is not an address of UCX", a.text(), "Use eyas+ucx://HOST:PORT");
    }

    std::shared_ptr<detail::UcxContext> context_;
};
static_assert(ReachesDevices<Ucx>);

}  // namespace eyas
