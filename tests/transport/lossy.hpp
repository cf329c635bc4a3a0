#pragma once
#include <atomic>
#include <memory>

#include "eyas/transport/transport.hpp"

namespace eyas::conformance {

/// A transport whose answers get lost on demand: the peer did the work and sent its answer, and the
/// link breaks before the caller has it.
template <TransportBackend B>
class Lossy {
public:
    struct Options {
        typename B::Options inner = typename B::Options();
        std::shared_ptr<std::atomic<int>> lose = std::make_shared<std::atomic<int>>(0);
    };
    class Link {
    public:
        Link(std::unique_ptr<typename B::Link> inner, std::shared_ptr<std::atomic<int>> lose)
            : inner_(std::move(inner)), lose_(std::move(lose)) {}
        void send(const OutMessage& m, const Limit& limit) { inner_->send(m, limit); }
        InMessage receive(const Limit& limit) {
            auto m = inner_->receive(limit);
            if (*lose_ > 0 && (*lose_)-- > 0) {
                inner_->close();
                throw TransportError("the answer was lost", inner_->peer(), "");
            }
            return m;
        }
        void receive_parts(std::span<const std::span<std::byte>> into, const Limit& limit) {
            inner_->receive_parts(into, limit);
        }
        void close() { inner_->close(); }
        std::string peer() const { return inner_->peer(); }
        bool passes_descriptors() const { return inner_->passes_descriptors(); }

    private:
        std::unique_ptr<typename B::Link> inner_;
        std::shared_ptr<std::atomic<int>> lose_;
    };
    class Listener {
    public:
        explicit Listener(std::unique_ptr<typename B::Listener> inner) : inner_(std::move(inner)) {}
        std::unique_ptr<Link> accept(const Limit& limit) {
            auto link = inner_->accept(limit);
            if (!link) return nullptr;
            return std::make_unique<Link>(std::move(link), std::make_shared<std::atomic<int>>(0));
        }
        Address address() const { return inner_->address(); }
        void close() { inner_->close(); }

    private:
        std::unique_ptr<typename B::Listener> inner_;
    };

    explicit Lossy(Options o) : lose_(std::move(o.lose)), inner_(std::move(o.inner)) {}
    static bool serves(std::string_view scheme) { return B::serves(scheme); }
    std::unique_ptr<Link> connect(const Address& a, const Limit& limit) {
        return std::make_unique<Link>(inner_.connect(a, limit), lose_);
    }
    std::unique_ptr<Listener> listen(const Address& a) {
        return std::make_unique<Listener>(inner_.listen(a));
    }
    auto register_region(std::span<std::byte> memory) { return inner_.register_region(memory); }

private:
    std::shared_ptr<std::atomic<int>> lose_;
    B inner_;
};

}  // namespace eyas::conformance
