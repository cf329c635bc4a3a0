#pragma once
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "eyas/transport/posix.hpp"
#include "eyas/transport/wire.hpp"

namespace eyas::detail {

/// How ranks learn that one has gone, where their library would let them wait: each holds the link
/// over which it met rank 0, and nothing is sent as long as all is well. A link that ends means
/// that its rank went; rank 0 tells the others whom it lost. A rank leaves only when no call of
/// another needs it any more. One thread.
class LifeLine {
public:
    using Links = std::vector<std::unique_ptr<Posix::Link>>;

    LifeLine() = default;
    explicit LifeLine(Links links) : links_(std::move(links)) {}

    /// Which rank has gone first, in words; nothing as long as all are there. Does not wait.
    const std::string& loss() {
        for (std::size_t p = 0; p < links_.size() && loss_.empty(); ++p)
            if (links_[p] && links_[p]->has_news()) loss_ = news_of(*links_[p], p);
        return loss_;
    }

    /// Ends the line; those at the other ends hear `why`.
    void cut(const std::string& why) noexcept {
        for (auto& link : links_) {
            if (!link) continue;
            try {
                WireWriter out;
                out.text(why.substr(0, longest));
                link->send({.head = out.bytes()}, soon());
            } catch (const std::exception&) {  // it is gone, too
            }
        }
        links_.clear();
    }

private:
    static constexpr std::size_t longest = 400;
    static Limit soon() { return Limit::within(std::chrono::milliseconds(200)); }

    static std::string news_of(Posix::Link& link, std::size_t rank) {
        try {
            const auto m = link.receive(soon());
            WireReader in(m.head, link.peer());
            return in.text(longest);
        } catch (const std::exception&) {  // the end of the link
            return "rank " + std::to_string(rank) + " went away";
        }
    }

    Links links_;
    std::string loss_;
};

}  // namespace eyas::detail
