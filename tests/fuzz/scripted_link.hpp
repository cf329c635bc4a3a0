#pragma once
#include <memory>
#include <string>

#include "eyas/transport/concept.hpp"
#include "eyas/transport/frame.hpp"
#include "fuzz.hpp"

namespace eyas::fuzz {

/// A link whose peer says what a Feed holds: a head, then a byte that says how many parts it
/// brings, then these. What is sent goes nowhere. TransportError when the feed is empty.
class ScriptedLink {
public:
    explicit ScriptedLink(Feed* feed) : feed_(feed) {}

    void send(const OutMessage& m, const Limit&) { (void)detail::Frame::encode(m); }
    InMessage receive(const Limit&) {
        if (feed_->empty()) throw TransportError("nothing more", "fuzz", "");
        InMessage m;
        const auto head = feed_->message();
        m.head.assign(head.begin(), head.end());
        parts_.clear();
        for (auto n = feed_->byte() % 8; n > 0; --n) {
            const auto part = feed_->message();
            parts_.emplace_back(part.begin(), part.end());
            m.parts.push_back(part.size());
        }
        return m;
    }
    void receive_parts(std::span<const std::span<std::byte>> into, const Limit&) {
        std::vector<std::uint64_t> sizes;
        for (const auto& p : parts_) sizes.push_back(p.size());
        detail::check_parts(sizes, into, "fuzz");
        for (std::size_t i = 0; i < into.size(); ++i)
            if (!into[i].empty()) std::memcpy(into[i].data(), parts_[i].data(), into[i].size());
    }
    void close() {}
    std::string peer() const { return "fuzz"; }
    bool passes_descriptors() const { return false; }

private:
    Feed* feed_;
    std::vector<std::vector<std::byte>> parts_;
};
static_assert(TransportLink<ScriptedLink>);

}  // namespace eyas::fuzz
