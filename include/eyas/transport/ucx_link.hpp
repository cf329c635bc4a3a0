#pragma once
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "eyas/transport/frame.hpp"
#include "eyas/transport/ucx_context.hpp"

namespace eyas::detail {

/// A link over UCX: one worker and one endpoint. A message is a frame (as on sockets) and then each
/// part, every one an active message of its own with its number as header. Large ones come by
/// rendezvous straight into the receiver's memory, which it gives after it saw what is announced.
class UcxLink {
public:
    /// `worker` with an endpoint made by `parameters` (an address, or a connection request).
    UcxLink(std::unique_ptr<UcxWorker> worker, ucp_ep_params_t parameters, std::string peer)
        : worker_(std::move(worker)), peer_(std::move(peer)) {
        ucp_am_handler_param_t handler{};
        handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                             UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
        handler.id = message_id;
        handler.flags = UCP_AM_FLAG_WHOLE_MSG | UCP_AM_FLAG_PERSISTENT_DATA;
        handler.cb = on_message;
        handler.arg = this;
        if (const auto s = ::ucp_worker_set_am_recv_handler(worker_->get(), &handler); s != UCS_OK)
            throw_ucx("ucp_worker_set_am_recv_handler", peer_, s);
        parameters.field_mask |=
            UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
        parameters.err_mode = UCP_ERR_HANDLING_MODE_PEER;
        parameters.err_handler = {on_error, this};
        if (const auto s = ::ucp_ep_create(worker_->get(), &parameters, &endpoint_); s != UCS_OK)
            throw_ucx("cannot connect", peer_, s);
    }
    UcxLink(const UcxLink&) = delete;
    UcxLink& operator=(const UcxLink&) = delete;
    ~UcxLink() {
        disconnect();
        for (auto& [unused, a] : inbox_)
            if (a.descriptor) ::ucp_am_data_release(worker_->get(), a.descriptor);
    }

    void send(const OutMessage& m, const Limit& limit) {
        if (m.descriptor >= 0)
            throw ContractError("a file cannot be handed over through UCX", peer_,
                                "Send the bytes");
        const auto frame = Frame::encode(m);
        Transfers all(*this);
        all.send(frame);
        for (const auto& p : m.parts) all.send(p);
        all.finish(limit, "sending");
    }

    InMessage receive(const Limit& limit) {
        if (waiting_)
            throw ContractError("the parts of the last message were not taken", peer_,
                                "Call receive_parts first");
        Arrived a = next(limit);
        if (a.size < Frame::fixed || a.size > largest_frame) {
            release(a);
            throw DataError("a message of " + std::to_string(a.size) + " bytes is no frame", peer_,
                            "Check that both sides run the same version of eyas");
        }
        std::vector<std::byte> bytes(a.size);
        Transfers one(*this);
        one.receive(a, bytes);
        one.finish(limit, "receiving");
        const std::span<const std::byte> all(bytes);
        const auto frame = Frame::decode(all.first(Frame::fixed), peer_);
        const auto sizes = std::size_t{8} * frame.parts;
        if (frame.descriptor || all.size() != Frame::fixed + sizes + frame.head)
            throw DataError("a frame that does not fit its message", peer_,
                            "Check that both sides run the same version of eyas");
        InMessage m;
        m.parts = Frame::decode_sizes(all.subspan(Frame::fixed, sizes), peer_);
        const auto head = all.subspan(Frame::fixed + sizes);
        m.head.assign(head.begin(), head.end());
        announced_ = m.parts;
        waiting_ = !m.parts.empty();
        return m;
    }

    void receive_parts(std::span<const std::span<std::byte>> into, const Limit& limit) {
        check_parts(announced_, into, peer_);
        Transfers all(*this);
        for (const auto& place : into) {
            Arrived a = next(limit);
            if (a.size != place.size()) {
                release(a);
                throw DataError("a part of " + std::to_string(a.size) + " bytes, announced were " +
                                    std::to_string(place.size()),
                                peer_, "Check that both sides run the same version of eyas");
            }
            all.receive(a, place);
        }
        all.finish(limit, "receiving");
        waiting_ = false;
        announced_.clear();
    }

    void close() {
        closed_ = true;
        worker_->signal();
    }
    const std::string& peer() const { return peer_; }
    bool passes_descriptors() const { return false; }

private:
    static constexpr unsigned message_id = 1;
    static constexpr std::size_t largest_frame =
        Frame::fixed + 8 * MessageBounds::parts + MessageBounds::head;
    static constexpr std::size_t most_waiting = std::size_t{256} << 20;  // bytes nobody asked for

    /// A message that UCX has for us: bytes in its memory, or a promise of them (rendezvous).
    struct Arrived {
        std::size_t size = 0;
        void* descriptor = nullptr;  // of UCX, to be released or received from
        bool promised = false;
        std::vector<std::byte> copy = {};
    };

    /// Operations under way; none survives this object, so their memory may be used after it.
    class Transfers {
    public:
        explicit Transfers(UcxLink& link) : link_(link) {}
        Transfers(const Transfers&) = delete;
        Transfers& operator=(const Transfers&) = delete;
        ~Transfers() {
            if (requests_.empty()) return;
            link_.disconnect();  // ends them
            while (!drained()) ::ucp_worker_progress(link_.worker_->get());
        }

        void send(std::span<const std::byte> bytes) {
            numbers_.push_back(std::make_unique<std::uint64_t>(link_.sent_++));
            const auto p = parameters(bytes.data(), bytes.size());
            add(::ucp_am_send_nbx(link_.require_endpoint(), message_id, numbers_.back().get(),
                                  sizeof(std::uint64_t), bytes.data(), bytes.size(), &p),
                "sending");
        }

        void receive(Arrived& a, std::span<std::byte> into) {
            if (!a.promised) {
                const void* from = a.descriptor ? a.descriptor : a.copy.data();
                link_.worker_->context().put(from, into);
                return link_.release(a);
            }
            const auto p = parameters(into.data(), into.size());
            add(::ucp_am_recv_data_nbx(link_.worker_->get(), std::exchange(a.descriptor, nullptr),
                                       into.data(), into.size(), &p),
                "receiving");
        }

        void finish(const Limit& limit, const char* doing) {
            link_.worker_->progress_until(
                [&] {
                    link_.require_alive(doing);
                    return drained();
                },
                limit, doing, link_.peer_);
            if (failed_ != UCS_OK)
                throw_ucx(std::string("lost the peer while ") + doing, link_.peer_, failed_);
        }

    private:
        ucp_request_param_t parameters(const void* data, std::size_t size) const {
            return link_.worker_->context().parameters(data, size);
        }
        void add(ucs_status_ptr_t r, const char* doing) {
            if (UCS_PTR_IS_ERR(r))
                throw_ucx(std::string("lost the peer while ") + doing, link_.peer_,
                          UCS_PTR_STATUS(r));
            if (r) requests_.push_back(r);
        }
        bool drained() {
            std::erase_if(requests_, [&](void* r) {
                const auto s = ::ucp_request_check_status(r);
                if (s == UCS_INPROGRESS) return false;
                if (s != UCS_OK) failed_ = s;
                ::ucp_request_free(r);
                return true;
            });
            return requests_.empty();
        }

        UcxLink& link_;
        std::vector<void*> requests_;
        std::vector<std::unique_ptr<std::uint64_t>> numbers_;  // read until a send is complete
        ucs_status_t failed_ = UCS_OK;
    };

    static ucs_status_t on_message(void* self, const void* header, std::size_t header_size,
                                   void* data, std::size_t size,
                                   const ucp_am_recv_param_t* parameters) {
        return static_cast<UcxLink*>(self)->arrive(header, header_size, data, size,
                                                   parameters->recv_attr);
    }
    static void on_error(void* self, ucp_ep_h, ucs_status_t status) {
        static_cast<UcxLink*>(self)->lost_ = status;
    }

    // Called by UCX inside progress: nothing may be thrown.
    ucs_status_t arrive(const void* header, std::size_t header_size, void* data, std::size_t size,
                        std::uint64_t attributes) {
        std::uint64_t number = 0;
        const bool promised = attributes & UCP_AM_RECV_ATTR_FLAG_RNDV;
        if (header_size != sizeof number) return refuse();
        std::memcpy(&number, header, sizeof number);
        if (number < received_ || inbox_.contains(number) || inbox_.size() > 4096) return refuse();
        if (!promised && (waiting_bytes_ += size) > most_waiting) return refuse();
        try {
            Arrived a{.size = size, .promised = promised};
            const bool keep = promised || (attributes & UCP_AM_RECV_ATTR_FLAG_DATA);
            if (keep)
                a.descriptor = data;
            else
                a.copy.assign(static_cast<std::byte*>(data), static_cast<std::byte*>(data) + size);
            inbox_.emplace(number, std::move(a));
            return keep ? UCS_INPROGRESS : UCS_OK;
        } catch (const std::bad_alloc&) {
            return refuse();
        }
    }
    ucs_status_t refuse() {
        malformed_ = true;
        return UCS_OK;
    }

    Arrived next(const Limit& limit) {
        worker_->progress_until(
            [&] {
                if (inbox_.contains(received_)) return true;  // also what came before a loss
                require_alive("receiving");
                return false;
            },
            limit, "receiving", peer_);
        auto node = inbox_.extract(received_++);
        if (!node.mapped().promised) waiting_bytes_ -= node.mapped().size;
        return std::move(node.mapped());
    }

    void release(Arrived& a) {
        if (auto* d = std::exchange(a.descriptor, nullptr))
            ::ucp_am_data_release(worker_->get(), d);
    }

    void require_alive(const char* doing) const {
        if (malformed_)
            throw DataError("a malformed message", peer_,
                            "Check that both sides run the same version of eyas");
        if (closed_)
            throw TransportError(std::string("the link was closed while ") + doing, peer_,
                                 "Nothing is left to do");
        if (lost_ != UCS_OK) throw_ucx(std::string("lost the peer while ") + doing, peer_, lost_);
    }
    ucp_ep_h require_endpoint() const {
        require_alive("sending");
        if (!endpoint_)
            throw TransportError("the link was given up after an error", peer_, "Connect again");
        return endpoint_;
    }

    // Gives the endpoint up; what is under way ends with an error.
    void disconnect() {
        if (!endpoint_) return;
        ucp_request_param_t p{};
        p.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
        p.flags = UCP_EP_CLOSE_FLAG_FORCE;
        void* r = ::ucp_ep_close_nbx(std::exchange(endpoint_, nullptr), &p);
        if (UCS_PTR_IS_ERR(r) || !r) return;
        while (::ucp_request_check_status(r) == UCS_INPROGRESS)
            ::ucp_worker_progress(worker_->get());
        ::ucp_request_free(r);
    }

    std::unique_ptr<UcxWorker> worker_;
    std::string peer_;
    ucp_ep_h endpoint_ = nullptr;
    std::atomic<bool> closed_ = false;
    ucs_status_t lost_ = UCS_OK;
    bool malformed_ = false, waiting_ = false;
    std::uint64_t sent_ = 0, received_ = 0;
    std::size_t waiting_bytes_ = 0;
    std::map<std::uint64_t, Arrived> inbox_;
    std::vector<std::uint64_t> announced_;
};

}  // namespace eyas::detail
