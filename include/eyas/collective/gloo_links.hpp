#pragma once
#include <gloo/context.h>
#include <gloo/transport/context.h>
#include <gloo/transport/device.h>
#include <gloo/transport/tcp/device.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "eyas/collective/meeting.hpp"

namespace eyas::detail {

/// Gloo writes to sockets whose other end may be gone, which raises SIGPIPE. While this lives the
/// thread takes none (nor do threads that it starts), and one that came is taken back at the end.
class WithoutSigpipe {
public:
    WithoutSigpipe() {
        sigemptyset(&pipe_);
        sigaddset(&pipe_, SIGPIPE);
        sigset_t pending;
        sigpending(&pending);
        was_pending_ = sigismember(&pending, SIGPIPE) == 1;
        pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
    }
    WithoutSigpipe(const WithoutSigpipe&) = delete;
    WithoutSigpipe& operator=(const WithoutSigpipe&) = delete;
    ~WithoutSigpipe() {
        const timespec now{};
        while (!was_pending_ && ::sigtimedwait(&pipe_, nullptr, &now) == SIGPIPE) {
        }
        pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    }

private:
    sigset_t pipe_{}, before_{};
    bool was_pending_ = false;
};

/// Gloo's connections from this rank to all others, over the way that leads to rank 0.
class GlooLinks : public ::gloo::Context {
public:
    /// Returns when all are connected; `peer` is the rank that is being connected, for messages.
    /// Throws what Meeting throws, and Gloo's own errors.
    GlooLinks(const Rendezvous& r, int& peer) : ::gloo::Context(r.rank, r.world) {
        const auto deadline = std::chrono::steady_clock::now() + r.timeout;
        // Kept back for connecting, when all have met. Gloo waits five times what it is told.
        const auto connecting = std::min(r.timeout / 4, std::chrono::milliseconds(10'000));
        ::gloo::transport::tcp::attr attr;
        attr.hostname = address_towards(r, {deadline, r.interrupt});
        device_ = ::gloo::transport::tcp::CreateDevice(attr);
        transportContext_ = device_->createContext(rank, size);
        transportContext_->setTimeout(std::max(connecting / 5, std::chrono::milliseconds(1)));
        std::vector<std::string> mine(static_cast<std::size_t>(size));
        for_each_peer([&](int p) {
            const auto bytes = transportContext_->createPair(p)->address().bytes();
            mine[static_cast<std::size_t>(p)] = {bytes.begin(), bytes.end()};
        });
        const auto theirs =
            Meeting(r, {deadline - connecting, r.interrupt}).exchange(std::move(mine));
        for_each_peer([&](int p) {
            peer = p;
            const auto& bytes = theirs[static_cast<std::size_t>(p)];
            transportContext_->getPair(p)->connect({bytes.begin(), bytes.end()});
        });
    }

    template <class F>
    void for_each_peer(F&& f) const {
        for (int p = 0; p < size; ++p)
            if (p != rank) f(p);
    }
};

}  // namespace eyas::detail
