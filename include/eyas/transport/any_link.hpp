#pragma once
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "eyas/transport/concept.hpp"

namespace eyas::detail {

/// A link of whichever backend: a client that finds its peer on its own machine goes on over
/// another one than it was made for.
class AnyLink {
public:
    virtual ~AnyLink() = default;
    virtual void send(const OutMessage& message, const Limit& limit) = 0;
    virtual InMessage receive(const Limit& limit) = 0;
    virtual void receive_parts(std::span<const std::span<std::byte>> into, const Limit& limit) = 0;
    virtual void close() = 0;
    virtual std::string peer() const = 0;
    virtual bool passes_descriptors() const = 0;
};
static_assert(TransportLink<AnyLink>);

template <TransportLink L>
class LinkOf final : public AnyLink {
public:
    explicit LinkOf(std::unique_ptr<L> link) : link_(std::move(link)) {}
    void send(const OutMessage& m, const Limit& limit) override { link_->send(m, limit); }
    InMessage receive(const Limit& limit) override { return link_->receive(limit); }
    void receive_parts(std::span<const std::span<std::byte>> into, const Limit& limit) override {
        link_->receive_parts(into, limit);
    }
    void close() override { link_->close(); }
    std::string peer() const override { return link_->peer(); }
    bool passes_descriptors() const override { return link_->passes_descriptors(); }

private:
    std::unique_ptr<L> link_;
};

/// Null for null.
template <TransportLink L>
std::unique_ptr<AnyLink> any_link(std::unique_ptr<L> link) {
    return link ? std::make_unique<LinkOf<L>>(std::move(link)) : nullptr;
}

}  // namespace eyas::detail
